"""LoRA, IA³ and whole blocks on every family: they alone learn, without them it is the base, and what is left opens."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from modulant.backbones.families import parts_of
from modulant.backbones.families.base import sides
from modulators import (
    AdaptedCausalLM,
    AdaptedEncoder,
    LemmaObjective,
    TunedCausalLM,
    TunedEncoder,
)
from modulators.training.controls.targets import Plan, matrices, plan
from probes.alignment.encoders import open_encoder
from tests.runs import main, small_wordnet
from tests.tiny_families import CAUSAL, MASKED, TEXT, build, config_of
from tests.word_tokenizer import save_word_tokenizer

ASKED, LAYERS, STEPS = 1500, [0, 2], 8
QUICK = ("--report.figures=false", "--relational.baselines=false", "--relational.bootstrap=0")
KINDS = ("lora", "ia3", "blocks")
IDS = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, 0, 0]])
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Model type → folder of a tiny model with a tokenizer, with the head that the family has."""
    root = tmp_path_factory.mktemp("families")
    words = {"<pad>": 0, "<end>": 1, "a": 2, ",": 3, **{f"w{i}": i for i in range(4, 97)}}
    for name in TEXT:
        build(name).save_pretrained(root / name)
        inner = Tokenizer(WordLevel(words, "<end>"))
        PreTrainedTokenizerFast(
            tokenizer_object=inner, pad_token="<pad>", eos_token="<end>", unk_token="<end>"
        ).save_pretrained(root / name)
    return {name: str(root / name) for name in TEXT}


def made(kind: str, folder: str, causal: bool, **more: Any) -> Any:
    """With its backbone."""
    if kind == "blocks":
        module: Any = (TunedCausalLM if causal else TunedEncoder)(folder, LAYERS, **more)
    else:
        module = (AdaptedCausalLM if causal else AdaptedEncoder)(kind, ASKED, folder, LAYERS, **more)  # type: ignore[arg-type]
    module.configure_model()
    return module


def learned(module: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def loud(module: Any) -> Any:
    """With something that learns that says something."""
    with torch.no_grad():
        for parameter in learned(module).values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def read(module: Any) -> Tensor:
    with torch.no_grad():
        hidden: Tensor = module.encode(IDS, (IDS > 0).long())
    return hidden


# On every family


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", TEXT)
def test_contract(model_type: str, kind: str, folders: dict[str, str]) -> None:
    """Base at the start and when disabled, to the bit; a gradient for what learns alone; a state dict of that alone."""
    folder, causal = folders[model_type], model_type in CAUSAL
    bare = parts_of(build(model_type)).stack
    inputs = {"input_ids": IDS, "attention_mask": (IDS > 0).long(), **({"use_cache": False} if causal else {})}
    with torch.no_grad():
        base = bare(**inputs).last_hidden_state
    module = made(kind, folder, causal)
    assert torch.equal(read(module), base)
    changed = read(loud(module))
    assert not torch.equal(changed, base)
    with module.handle.disabled(), module.handle.disabled():
        assert torch.equal(read(module), base)
    assert torch.equal(read(module), changed)

    module.train()
    batch = {"input_ids": IDS, "attention_mask": (IDS > 0).long(), "labels": IDS[:, :2]}
    loss, hidden = module._training_pass(batch, causal)
    torch.testing.assert_close(hidden[IDS > 0], changed[IDS > 0], rtol=1e-4, atol=1e-5)
    (hidden.square().mean() if loss is None else loss).backward()
    own = learned(module)
    assert {name for name, p in module.named_parameters() if p.grad is not None} == own.keys()
    blocks = [f".{layer}." for layer in LAYERS]
    assert all(any(block in name for block in blocks) for name in own)
    assert {id(p) for group in module._parameter_groups() for p in group["params"]} == {id(p) for p in own.values()}
    if kind != "blocks":
        assert sum(p.numel() for p in own.values()) == module.plan.parameters

    state = module.state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == sum(p.numel() for p in own.values())
    other = made(kind, folder, causal)
    other.load_state_dict(state)
    assert torch.equal(read(other), changed)
    with pytest.raises(ValueError, match="missing"):
        other.load_state_dict({})


@pytest.mark.parametrize("kind", ["lora", "ia3"])
@pytest.mark.parametrize("model_type", TEXT)
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft 0.21 asks for it
def test_peft_reads_what_is_left(model_type: str, kind: str, folders: dict[str, str], tmp_path: Path) -> None:
    """On what transformers opens without knowing of us; and so does the probe."""
    from peft import PeftModel

    folder, causal = folders[model_type], model_type in CAUSAL
    module = loud(made(kind, folder, causal))
    module.save_adapter(tmp_path)
    bare = (AutoModelForCausalLM if causal else AutoModel).from_pretrained(folder)
    model = PeftModel.from_pretrained(bare, tmp_path).eval()
    inputs = {"input_ids": IDS, "attention_mask": (IDS > 0).long()}
    with torch.no_grad():
        found = parts_of(model.get_base_model()).stack(**inputs).last_hidden_state
    expected = read(module)
    assert torch.equal(found, expected)
    encoder = open_encoder(str(tmp_path))
    with torch.no_grad():
        modulated, original = (encoder.hidden(cloud)(*inputs.values()) for cloud in ("modulated", "original"))
    assert torch.equal(modulated, expected)
    with module.handle.disabled():
        assert torch.equal(original, read(module))


@pytest.mark.parametrize("model_type", sorted(MASKED))
def test_an_adapter_that_had_a_head_opens_without_it(model_type: str, folders: dict[str, str], tmp_path: Path) -> None:
    module = loud(made("lora", folders[model_type], False, objective=LemmaObjective()))
    assert type(module.model).__name__.endswith("ForMaskedLM")
    module.save_adapter(tmp_path)
    with torch.no_grad():
        found = open_encoder(str(tmp_path)).hidden("modulated")(IDS, (IDS > 0).long())
    assert torch.equal(found, read(module))


# How many parameters


@pytest.mark.parametrize("model_type", TEXT)
def test_shapes_without_weights_are_those_of_the_backbone(model_type: str) -> None:
    parts = parts_of(build(model_type))
    found = parts.family.matrices_of(parts.blocks[1])
    expected = {kind: [sides(matrix) for matrix in inner.values()] for kind, inner in found.items()}
    assert matrices(config_of(model_type)) == expected


@pytest.mark.parametrize(
    ("adapter", "asked", "expected"),
    [
        # two blocks of a width of 32: (32 + 96), (32 + 32), (32 + 128), (128 + 32) a rank
        ("lora", 1, Plan(("qkv",), (), 1, 2 * 128)),
        ("lora", 400, Plan(("qkv", "o"), (), 1, 2 * 192)),
        ("lora", 2 * 512 * 3, Plan(("qkv", "o", "wi", "wo"), (), 3, 2 * 512 * 3)),
        # a fused matrix is scaled at its output alone
        ("ia3", 1, Plan(("qkv",), (), None, 2 * 96)),
        ("ia3", 450, Plan(("qkv",), ("wo",), None, 2 * 224)),
        ("ia3", 500, Plan(("qkv", "o"), ("wo",), None, 2 * 256)),
        ("ia3", 10**6, Plan(("qkv", "o", "wi"), ("wo",), None, 2 * 384)),
    ],
)
def test_one_matrix_for_queries_keys_and_values(adapter: Any, asked: int, expected: Plan) -> None:
    assert plan(adapter, matrices(config_of("gpt2")), 2, asked) == expected


# From the command line


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    wordnet = str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))
    folder = str(tmp_path_factory.mktemp("bert"))
    n_words = save_word_tokenizer(folder, wordnet, SPECIAL, "[CLS] $A [SEP]")
    build("bert", head=False, vocab_size=n_words).save_pretrained(folder)
    data = [f"--data.nltk_data={wordnet}", "--data.batch_size=32", "--data.val_fraction=0.2"]
    return [f"--model.backbone={folder}", "--model.schedule=constant", *data, "--pentachoron.stop=false"]


@pytest.mark.parametrize(("control", "trains"), [("lora", "AdaptedEncoder"), ("full", "TunedEncoder")])
def test_a_control_of_an_encoder_trains_and_resumes(
    control: str, trains: str, given: list[str], tmp_path: Path
) -> None:
    words = ["--config=encoder.yaml", f"--config=controls/{control}.yaml", f"--model={trains}", *given]
    for name, steps in (("whole", STEPS), ("run", STEPS - 1)):
        main()(["fit", *words, *QUICK, f"--output={tmp_path / name}", f"--trainer.max_steps={steps}"])
    main()(["fit", f"--resume={tmp_path / 'run'}", *QUICK, f"--trainer.max_steps={STEPS}"])
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert (report["run"]["outcome"], report["run"]["steps"]) == ("finished", STEPS)
    assert report["model"]["describe"]["class"] == trains
    assert report["relational"]["last"]["pearson_lift"] != 0
    whole, resumed = (
        torch.load(tmp_path / name / f"checkpoints/step_{STEPS:08d}.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "run")
    )
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    if control == "lora":
        saved = load_file(tmp_path / "whole/adapter/adapter_model.safetensors")
        assert sum(tensor.numel() for tensor in saved.values()) == report["model"]["parameters"]["trainable"]
        assert open_encoder(str(tmp_path / "whole")).clouds(random=False) == ["modulated", "original", "static"]
    else:
        assert not (tmp_path / "whole" / "adapter").exists()
