"""Backbones by path, frozen; for anything else a one-line error."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
)

from modulant.assets import MINI
from modulant.backbones.families import stream_of
from modulant.backbones.loading import RandomEncoder
from modulant.backbones.t5 import encode, load_backbone, load_config
from modulant.backbones.tokenizers import load_tokenizer
from modulators import FieldModulator, LerpModulator, ModulatedT5, ResidualStream, load_modulated, save_modulator

# google-t5/t5-small's config.json, as the hub has it.
T5_SMALL = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_ff": 2048,
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-06,
    "model_type": "t5",
    "n_positions": 512,
    "num_heads": 8,
    "num_layers": 6,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "task_specific_params": {
        "summarization": {
            "early_stopping": True,
            "length_penalty": 2.0,
            "max_length": 200,
            "min_length": 30,
            "no_repeat_ngram_size": 3,
            "num_beams": 4,
            "prefix": "summarize: ",
        }
    },
    "use_cache": True,
    "vocab_size": 32128,
}


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
def test_loaded_by_path_and_frozen(backbones: dict[str, str], variant: str, tokens: dict[str, Tensor]) -> None:
    folder = backbones[variant]
    model = load_backbone(folder)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for name, tensor in load_file(Path(folder) / "model.safetensors").items():
        assert torch.equal(model.state_dict()[name], tensor)
    tied = torch.equal(model.lm_head.weight, model.shared.weight)
    assert (tied, model.config.scale_decoder_outputs) == ((True, True) if variant == "v1_0" else (False, False))
    assert stream_of(load_config(folder)) == ResidualStream(32, 3, len(load_tokenizer(folder)))
    hidden = encode(model, tokens["input_ids"], tokens["attention_mask"])
    assert hidden.shape == (4, 70, 32)
    own = model(**tokens).encoder_last_hidden_state
    assert torch.equal(hidden, own)


def test_mini() -> None:
    stream = stream_of(load_config("mini"))
    config = json.loads((MINI / "config.json").read_text())
    assert stream == ResidualStream(config["d_model"], config["num_layers"], config["vocab_size"])
    assert load_backbone("mini").dtype == torch.float32, "the bundled weights are halves"
    assert len(load_tokenizer("mini")) == stream.vocab_size


def test_bf16(backbone: str) -> None:
    assert {p.dtype for p in load_backbone(backbone, torch.bfloat16).parameters()} == {torch.bfloat16}


def test_t5_small_as_the_hub_has_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(T5_SMALL))
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(**T5_SMALL)).half()
    weights = {name: value.contiguous() for name, value in model.named_parameters()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    AutoTokenizer.from_pretrained(MINI).save_pretrained(tmp_path)
    module = ModulatedT5(LerpModulator, backbone=str(tmp_path), backbone_dtype="bfloat16")
    assert module.stream == ResidualStream(512, 6, 32128)
    assert sum(p.numel() for p in module.modulator.parameters()) == 2_088_966
    module.configure_model()
    ids = torch.randint(3, 32_000, (2, 12))
    assert module.encode(ids, torch.ones_like(ids)).shape == (2, 12, 512)
    assert module._answer({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, 3).shape[1] <= 3


def test_the_random_encoder(backbone: str, tokens: dict[str, Tensor]) -> None:
    config = load_config(backbone)
    state = torch.get_rng_state()
    one, same, other = (RandomEncoder(config, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert torch.equal(one(ids, mask), same(ids, mask))
    assert not torch.allclose(one(ids, mask), other(ids, mask))
    assert not torch.allclose(one(ids, mask), encode(load_backbone(backbone), ids, mask))
    assert not any(module.training for module in one.model.modules())


def test_the_random_encoder_of_a_backbone_stored_in_halves() -> None:
    assert {p.dtype for p in RandomEncoder(load_config("mini"), 0).parameters()} == {torch.float32}


def copied(backbone: str, folder: Path) -> Path:
    shutil.copytree(backbone, folder)
    return folder


def test_what_is_no_backbone(backbone: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    BertConfig().save_pretrained(tmp_path / "bert")
    nonsense = copied(backbone, tmp_path / "nonsense")
    (nonsense / "config.json").write_text("{not json")
    for name, message in (
        (tmp_path / "nowhere", "no folder .*nowhere; it must be 'mini', a folder or a hub id"),
        ("./nowhere", "no folder ./nowhere"),
        (tmp_path / "empty", "cannot be loaded"),
        (tmp_path / "bert", "is a bert; it must be one of t5, mt5, umt5"),
        (nonsense, "cannot be loaded"),
        ("nobody/has-this-t5", "'nobody/has-this-t5' cannot be loaded .* which needs a network or a filled cache"),
    ):
        with pytest.raises(ValueError, match=rf"^model\.backbone: .*{message}") as error:
            load_config(str(name))
        assert "\n" not in str(error.value)


def test_weights_that_are_not_the_configurations(backbone: str, tmp_path: Path) -> None:
    whole = load_file(Path(backbone) / "model.safetensors")
    name = "encoder.block.1.layer.0.SelfAttention.q.weight"
    for case, tensors, message in (
        ("lacking", {key: value for key, value in whole.items() if key != name}, rf"lacks 1 tensors \({name} …\)"),
        ("misshapen", {**whole, name: whole[name][:8].clone()}, "cannot be read"),
    ):
        folder = copied(backbone, tmp_path / case)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=rf"^model\.backbone: .*{message}") as error:
            load_backbone(str(folder))
        assert "\n" not in str(error.value)
    for case, content in (("cut", b"\x10\x00"), ("gone", None)):
        folder = copied(backbone, tmp_path / case)
        (folder / "model.safetensors").unlink()
        if content is not None:
            (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"^model\.backbone: the weights of .* cannot be read") as error:
            load_backbone(str(folder))
        assert "\n" not in str(error.value)


def test_no_tokenizer(tmp_path: Path) -> None:
    UMT5Config(vocab_size=64).save_pretrained(tmp_path)
    assert stream_of(load_config(str(tmp_path))).vocab_size == 64
    with pytest.raises(ValueError, match="has no readable tokenizer") as error:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)


def changed(backbone: str, folder: Path, **config: object) -> str:
    """A copy with other keys in config.json; those that are None are left out."""
    place = copied(backbone, folder)
    whole = json.loads((place / "config.json").read_text()) | config
    (place / "config.json").write_text(json.dumps({key: value for key, value in whole.items() if value is not None}))
    return str(place)


@pytest.mark.parametrize("name", ["T5EncoderModel", "UMT5EncoderModel", "T5ForTokenClassification", "MT5Model"])
def test_a_model_without_decoder_or_head(name: str, backbone: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^model\.backbone: .* is a {name}; it must have a decoder and"):
        load_config(changed(backbone, tmp_path / "t5", architectures=[name]))


def test_a_t5_without_a_start_token_starts_with_its_padding(
    backbone: str, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    folder = changed(backbone, tmp_path / "t5", decoder_start_token_id=None)
    module, expected = ModulatedT5(LerpModulator, backbone=folder), ModulatedT5(LerpModulator, backbone=backbone)
    for one in (module, expected):
        one.configure_model()
    assert torch.equal(module(tokens).loss, expected(tokens).loss)
    assert torch.equal(module._answer(tokens, 4), expected._answer(tokens, 4))


def test_no_padding(backbone: str, tmp_path: Path) -> None:
    folder = Path(changed(backbone, tmp_path / "t5"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    with pytest.raises(ValueError, match=r"^model\.backbone: config\.json of .* has no pad_token_id"):
        load_config(str(folder))


def test_a_tokenizer_of_another_model(backbone: str, tmp_path: Path) -> None:
    folder = changed(backbone, tmp_path / "t5", vocab_size=15_000)
    with pytest.raises(ValueError, match=r"^model\.backbone: the tokenizer of .* has 16,000 tokens, .* 15,000 \(vocab"):
        load_tokenizer(folder)
    assert len(load_tokenizer(folder, key="data.tokenizer")) == 16_000, "for a model that is yet to be made"


def test_mt5(tokens: dict[str, Tensor], tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4}
    MT5ForConditionalGeneration(MT5Config(vocab_size=16_064, **sizes)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(MINI).save_pretrained(tmp_path)
    module = ModulatedT5(FieldModulator, backbone=str(tmp_path), layers=[1, 2])
    module.configure_model()
    module(tokens).loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in module.modulator.parameters())
    save_modulator(module.modulator, tmp_path / "modulator", str(tmp_path), [1, 2])
    model, _ = load_modulated(tmp_path / "modulator")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    with module.handle.disabled():
        base = module.encode(ids, mask)
    assert torch.equal(encode(model, ids, mask), module.encode(ids, mask))
    assert not torch.equal(encode(model, ids, mask), base)


@pytest.mark.parametrize("variant", ["v1_0", "v1_1", "lacking"])
def test_loading_gives_no_advice(
    backbones: dict[str, str], variant: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if variant == "lacking":  # a table of what is missing came before the error
        folder = copied(backbones["v1_0"], tmp_path / "t5")
        tensors = load_file(folder / "model.safetensors")
        del tensors["encoder.final_layer_norm.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match="lacks 1 tensors"):
            load_backbone(str(folder))
    else:
        load_backbone(backbones[variant])
    assert not caplog.records
