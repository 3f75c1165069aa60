"""An artefact comes back as what was saved, bit for bit, or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from modulant.backbones.families import stream_of
from modulant.backbones.t5 import encode, load_backbone, load_config
from modulant.storage import sha256_of
from modulators import (
    FieldModulator,
    LerpModulator,
    ModulatedT5,
    PretrainedModulator,
    ResidualStream,
    attach,
    load_modulated,
    save_modulator,
)
from modulators.artifact.files import _BACKBONE_FILES, CONFIG, WEIGHTS, backbone_digest
from modulators.base import Modulator


def trained(backbone: str, modulator: Any, layers: Any = "all") -> ModulatedT5:
    """A module whose modulator is no longer as it starts."""
    module = ModulatedT5(modulator, backbone=backbone, layers=layers)
    module.configure_model()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in module.modulator.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.fixture
def folder(backbone: str, tmp_path: Path) -> Path:
    module = trained(backbone, FieldModulator)
    save_modulator(module.modulator, tmp_path / "modulator", backbone, module.layers)
    return tmp_path / "modulator"


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
@pytest.mark.parametrize(
    ("modulator", "layers"),
    [
        (FieldModulator, "all"),
        (lambda s: FieldModulator(s, expert_ks=(3,), null_space_position="scattered", validity_gate=False), [1, 2]),
        (lambda s: LerpModulator(s, n_geometric_dims=8, per_layer_alpha=False, learnable_alpha=False), [0]),
        (lambda s: FieldModulator(s, gate="centred", deform_scale=0.1), "all"),
        (lambda s: FieldModulator(s, gate="centred", features="linear"), "all"),
        (lambda s: FieldModulator(s, gate="centred", features="random"), [1]),
        (lambda s: FieldModulator(s, gate="centred", features="constant", expert_edim=64), "all"),
    ],
)
def test_round_trip(
    backbones: dict[str, str], variant: str, modulator: Any, layers: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    backbone = backbones[variant]
    module = trained(backbone, modulator, layers)
    save_modulator(module.modulator, tmp_path, backbone, module.layers)
    model, tokenizer = load_modulated(tmp_path)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    live = module.encode(ids, mask)
    assert torch.equal(encode(model, ids, mask), live)
    base = load_backbone(backbone)
    assert not torch.equal(encode(base, ids, mask), live)
    with model.modulation.disabled():
        assert torch.equal(encode(model, ids, mask), encode(base, ids, mask))
    assert model.modulation.layers == module.layers
    assert model.state_dict().keys() == base.state_dict().keys()
    assert not any(parameter.requires_grad for parameter in model.modulator.parameters())
    assert model.generate(ids, attention_mask=mask, max_new_tokens=3).shape[0] == 4
    assert tokenizer("a dog").input_ids[-1] == tokenizer.eos_token_id


def test_files(folder: Path, backbone: str) -> None:
    assert {file.name for file in folder.iterdir()} == {"modulator.safetensors", "modulator_config.json", "README.md"}
    config = json.loads((folder / CONFIG).read_text())
    assert ResidualStream(**config["stream"]) == stream_of(load_config(backbone))
    assert (config["modulator"], config["layers"], config["backbone"]) == ("FieldModulator", [0, 1, 2], backbone)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert 'load_modulated("modulator")' in card


def rewritten(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def refused(folder: Path, message: str, **arguments: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_modulated(folder, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("case", ["extra", "missing", "misshapen", "dtype", "nan"])
def test_tensors_that_are_not_the_configurations(folder: Path, case: str) -> None:
    tensors = load_file(folder / WEIGHTS)
    if case == "extra":
        tensors["experts.k1.more"] = torch.zeros(2)
    elif case == "missing":
        del tensors["alpha_logits"]
    elif case == "dtype":
        tensors["alpha_logits"] = tensors["alpha_logits"].double()
    elif case == "nan":
        tensors["alpha_logits"][0, 0] = float("nan")
    else:
        tensors["alpha_logits"] = torch.zeros(3, 4)
    save_file(tensors, folder / WEIGHTS)
    rewritten(folder, sha256=sha256_of(folder / WEIGHTS))
    name = "experts.k1.more" if case == "extra" else "alpha_logits"
    refused(folder, rf"modulator\.safetensors: not the tensors that modulator_config\.json describes .*{name}")


def test_damaged_tensors(folder: Path) -> None:
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[-3] ^= 1  # in the data, where safetensors checks nothing
    (folder / WEIGHTS).write_bytes(content)
    refused(folder, "its SHA-256 is not the one in modulator_config.json")
    (folder / WEIGHTS).write_bytes(content[:40])
    rewritten(folder, sha256=sha256_of(folder / WEIGHTS))
    refused(folder, "not the tensors that modulator_config.json describes")
    (folder / WEIGHTS).unlink()
    refused(folder, "not the tensors that modulator_config.json describes .*No such file")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modulator": "Popen"}, "modulator is 'Popen'; it must be one of LerpModulator, FieldModulator"),
        ({"init_args": {"colour": "red"}}, "init_args: .*unexpected keyword argument 'colour'"),
        ({"init_args": {"expert_ks": [0]}}, "init_args: "),
        (
            {"init_args": {"expert_ks": [9], "expert_edim": 9, "gate": "centred", "features": "constant"}},
            "init_args: expert 9 needs 46 columns of gate_projs.k9.weight, got 0",
        ),
        ({"layers": [7]}, "layers: layer 7 does not exist; the encoder has 3 layers"),
        ({"stream": {"d_model": 64, "n_layers": 3, "vocab_size": 16000}}, "trained for a backbone of .*'d_model': 64"),
        ({"stream": {"width": 64}}, "not an artefact of a modulator"),
        (
            {"stream": {"d_model": 10**9, "n_layers": 3, "vocab_size": 9}},
            "stream: a size is 1,000,000,000; it must be at most 1,048,576",
        ),
        ({"layers": "all"}, "not an artefact of a modulator .*layers is 'all'"),
        ({"backbone": 7}, "not an artefact of a modulator .*backbone is 7"),
        ({"backbone_revision": ["main"]}, r"not an artefact of a modulator .*backbone_revision is \['main'\]"),
    ],
)
def test_a_configuration_that_is_wrong(folder: Path, changes: dict[str, Any], message: str) -> None:
    rewritten(folder, **changes)
    refused(folder, message)


def test_another_backbone(folder: Path, backbones: dict[str, str], tokens: dict[str, Tensor]) -> None:
    model, _ = load_modulated(folder, backbone=backbones["v1_1"])
    assert model.config.is_gated_act
    refused(folder, "trained for a backbone of .*'mini' has", backbone="mini")


def test_a_backbone_that_has_changed(backbone: str, tmp_path: Path) -> None:
    place = shutil.copytree(backbone, tmp_path / "t5")
    save_modulator(FieldModulator(stream_of(load_config(str(place)))), tmp_path / "modulator", str(place), [0])
    load_modulated(tmp_path / "modulator")
    weights = load_file(place / "model.safetensors")
    weights["shared.weight"][5, 5] += 1
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path / "modulator", "no longer has the weights that the modulator was trained on")
    load_modulated(tmp_path / "modulator", backbone=str(place))  # said in so many words


def layout(model: Any, kind: str, folder: Path) -> None:
    """Write a model's weights in one of the layouts of the hub, instead of those in the folder."""
    for file in [*folder.glob("*.safetensors*"), *folder.glob("*.bin*")]:
        file.unlink()
    if kind == "one pickle":
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    elif kind == "pickles":
        state = list(model.state_dict().items())
        parts = {"pytorch_model-1.bin": dict(state[:9]), "pytorch_model-2.bin": dict(state[9:])}
        for name, tensors in parts.items():
            torch.save(tensors, folder / name)
        index = {"metadata": {}, "weight_map": {key: name for name, tensors in parts.items() for key in tensors}}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        model.save_pretrained(folder, max_shard_size="600KB" if kind == "shards" else "1GB")


LAYOUTS = ["one file", "shards", "one pickle", "pickles"]


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_digest_is_of_the_weights_in_every_layout(kind: str, backbone: str, tmp_path: Path) -> None:
    place = shutil.copytree(backbone, tmp_path / "t5")
    model = load_backbone(str(place))
    expected = backbone_digest(str(place))
    layout(model, kind, place)
    assert kind != "shards" or len(list(place.glob("*.safetensors"))) > 1
    assert backbone_digest(str(place)) == expected, "the same tensors in other files"
    save_modulator(FieldModulator(stream_of(model.config)), tmp_path / "modulator", str(place), [0])
    load_modulated(tmp_path / "modulator")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    layout(model, kind, place)
    refused(tmp_path / "modulator", "no longer has the weights that the modulator was trained on")
    load_modulated(tmp_path / "modulator", backbone=str(place))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_the_digest_of_one_file_as_0_1_0_wrote_it(kind: str, backbone: str, tmp_path: Path) -> None:
    place = shutil.copytree(backbone, tmp_path / "t5")
    model = load_backbone(str(place))
    layout(model, kind, place)
    save_modulator(FieldModulator(stream_of(model.config)), tmp_path / "modulator", str(place), [0])
    file = next(place / name for name in _BACKBONE_FILES if (place / name).is_file())
    rewritten(tmp_path / "modulator", backbone_sha256={file.name: sha256_of(file)})
    load_modulated(tmp_path / "modulator")
    rewritten(tmp_path / "modulator", backbone_sha256={file.name: "0" * 64})
    refused(tmp_path / "modulator", "no longer has the weights")
    rewritten(tmp_path / "modulator", backbone_sha256={"../secret": "0" * 64})
    refused(tmp_path / "modulator", "backbone_sha256 names '../secret', which holds no weights")


@pytest.mark.parametrize("what", ["transformers_weights", "adapter"])
def test_weights_from_elsewhere(what: str, backbone: str, tmp_path: Path) -> None:
    place = shutil.copytree(backbone, tmp_path / "t5")
    if what == "adapter":
        (place / "adapter_config.json").write_text("{}")
    else:
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(config | {what: "other.safetensors"}))
    with pytest.raises(ValueError, match=r"^model\.backbone: .*(names a file of weights|holds an adapter of peft)"):
        load_config(str(place))


def test_an_artefact_of_an_older_version(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    newer = {"backbone_revision", "backbone_sha256", "parameters", "geometry"}
    (folder / CONFIG).write_text(json.dumps({key: value for key, value in config.items() if key not in newer}))
    (folder / "README.md").unlink()
    load_modulated(folder)
    assert "# FieldModulator for" in PretrainedModulator.from_pretrained(folder).card


def test_a_modulator_without_its_backbone(folder: Path, backbone: str, tmp_path: Path) -> None:
    """… for a T5 that is there already, and saved again as the same three files."""
    pretrained = PretrainedModulator.from_pretrained(folder.parent)  # as a run has it, in modulator/
    assert not pretrained.modulator.training
    assert not any(parameter.requires_grad for parameter in pretrained.modulator.parameters())
    model = load_backbone(backbone)
    attach(model, pretrained.modulator, pretrained.about["layers"])
    ids = torch.arange(3, 30)[None]
    theirs, _ = load_modulated(folder.parent)
    assert torch.equal(model.encoder(ids)[0], theirs.encoder(ids)[0])
    pretrained.save_pretrained(tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_what_is_no_artefact(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "not an artefact of a modulator .*No such file")
    (folder / CONFIG).write_text("{not json")
    refused(folder, "not an artefact of a modulator")
    (folder / CONFIG).write_text("{}")
    refused(folder, "not an artefact of a modulator .*missing key 'modulator'")
    refused(Path("nobody/has-this-modulator"), "neither a folder nor an accessible hub repository")


def test_a_registered_class(tmp_path: Path, backbone: str) -> None:
    class Mine(FieldModulator):
        pass

    modulator: Modulator = trained(backbone, Mine).modulator
    with pytest.raises(ValueError, match="a Mine cannot be saved as an artefact"):
        save_modulator(modulator, tmp_path, backbone, [0], {})
