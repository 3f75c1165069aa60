"""--dry-run: what it says is what a run then does, and it leaves nothing."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Call
from tests.runs import LEMMA
from tests.tiny_families import build
from tests.word_tokenizer import save_word_tokenizer

QUICK = ["--report.figures=false", "--relational.baselines=false", "--relational.bootstrap=0"]


def test_steps_of_the_relational_objective_are_those_of_its_synsets(call: Call, wordnet: str) -> None:
    argv = ["fit", "--config", "field.yaml", "--data.nltk_data", wordnet, *QUICK, "--trainer.max_epochs", "2"]
    argv += ["--data.batch_size", "16", "--pentachoron.stop=false"]
    facts = json.loads(call(*argv, "--dry-run=json").out)
    assert call(*argv, "--output", "run").code == 0
    report = json.loads(Path("run/report.json").read_text())
    assert facts["training"]["steps"] == report["run"]["steps"]
    assert facts["memory"]["longest_batch"][0] <= 17


def test_what_is_said_is_what_is_done(call: Call, wordnet: str) -> None:
    argv = ["fit", "--config", "field.yaml", *LEMMA, "--data.nltk_data", wordnet, *QUICK, "--trainer.max_epochs", "2"]
    argv += ["--trainer.accumulate_grad_batches", "4", "--trainer.limit_train_batches", "5"]
    argv += ["--model.layers", "[4, 5]", "--model.cache", "memory"]
    said = call(*argv, "--dry-run=json")
    assert (said.code, said.err) == (0, "")
    facts = json.loads(said.out)
    assert list(Path().iterdir()) == []
    assert call(*argv).code == 0
    report = json.loads(Path("runs/field/version_0/report.json").read_text())
    assert facts["run_folder"] == "runs/field/version_0"
    assert facts["training"]["steps"] == report["run"]["steps"] == 4
    assert facts["model"]["trained_parameters"] == report["model"]["parameters"]["trainable"]
    assert facts["model"]["frozen_parameters"] == report["model"]["describe"]["frozen_parameters"]
    checkpoint = torch.load("runs/field/version_0/checkpoints/step_00000004.ckpt", weights_only=True)
    for told, group in zip(facts["model"]["groups"], checkpoint["optimizer_states"][0]["param_groups"], strict=True):
        assert (told["name"], told["lr"]) == (group["name"], group["initial_lr"])
    assert facts["data"]["train_entries"] == 180
    assert facts["cache"]["bytes"] == report["model"]["describe"]["cache"]["bytes"]
    # another one would go beside it
    page = call(*argv, "--dry-run").out
    assert "run folder   runs/field/version_1" in page
    assert "2 epochs of 2 steps, 4 in all" in page
    assert "cache        layers 0–3 of 180 entries" in page
    assert [path.name for path in Path("runs/field").iterdir()] == ["version_0"]


@pytest.fixture(scope="module")
def folders(wordnet: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A BERT with its head, and a GPT-2."""
    root = tmp_path_factory.mktemp("backbones")
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", "eos_token": "[END]"}
    for name in ("bert", "gpt2"):
        n_words = save_word_tokenizer(str(root / name), wordnet, special)
        build(name, vocab_size=n_words).save_pretrained(root / name)
    return {path.name: str(path) for path in root.iterdir()}


@pytest.mark.parametrize(
    ("config", "backbone", "learns", "more"),
    [
        ("encoder", "bert", "Modulated", ("--data.mask_share=0.3", "--model.objective.init_args.task=0.1")),
        ("encoder", "bert", "Tuned", ()),
        ("causal", "gpt2", "Adapted", ("--model.adapter=lora", "--model.n_parameters=2000")),
        ("causal", "gpt2", "Tuned", ("--model.layers=[1]",)),
    ],
)
def test_any_family(
    config: str,
    backbone: str,
    learns: str,
    more: tuple[str, ...],
    call: Call,
    folders: dict[str, str],
    wordnet: str,
) -> None:
    """What is said of an encoder and a causal model is what is done, too."""
    kind = f"--model={learns}{'Encoder' if config == 'encoder' else 'CausalLM'}"
    argv = ["fit", "--config", f"{config}.yaml", kind, f"--model.backbone={folders[backbone]}", *more, *QUICK]
    argv += ["--data.nltk_data", wordnet, "--data.batch_size=64", "--trainer.max_steps=2", "--pentachoron.stop=false"]
    said = call(*argv, "--dry-run=json")
    assert (said.code, said.err) == (0, "")
    facts = json.loads(said.out)
    assert call(*argv, "--output=run").code == 0
    report = json.loads(Path("run/report.json").read_text())
    assert facts["model"]["trained_parameters"] == report["model"]["parameters"]["trainable"]
    assert facts["model"]["frozen_parameters"] == report["model"]["describe"]["frozen_parameters"]
    assert facts["training"]["steps"] == report["run"]["steps"]
    memory = facts["memory"]
    assert memory["weights"] >= 4 * facts["model"]["frozen_parameters"]
    assert memory["activations"] > 0
    checkpoint = torch.load("run/checkpoints/step_00000002.ckpt", weights_only=True)
    for told, group in zip(facts["model"]["groups"], checkpoint["optimizer_states"][0]["param_groups"], strict=True):
        assert (told["name"], told["lr"]) == (group["name"], group["initial_lr"])
    size = Path("run/checkpoints/step_00000002.ckpt").stat().st_size
    assert facts["checkpoint"]["bytes"] < size < facts["checkpoint"]["bytes"] + 200_000
    assert "learns" in call(*argv, "--dry-run").out


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["predict", "--config", "field.yaml", "--prompt", "x"], "asks         1 prompt\n"),
        (["validate", "--config", "field.yaml", "--config", "ddp.yaml", "--trainer.devices=2"], "2 × cpu, DDPStrategy"),
        (["fit", "--config", "lerp.yaml", "--config", "controls/ia3.yaml"], "learns       IA³"),
        (["fit", "--config", "lerp.yaml", "--config", "controls/full.yaml"], "learns       every weight in layers 0,"),
        (["fit", "--config", "pretrain_mini.yaml"], "PretrainT5, whose sizes"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_every_command(call: Call, wordnet: str, argv: list[str], part: str) -> None:
    said = call(*argv, "--data.nltk_data", wordnet, "--trainer.accelerator=cpu", "--dry-run")
    assert (said.code, said.err) == (0, "")
    assert part in said.out
    assert list(Path().iterdir()) == []


def test_what_is_wrong(call: Call) -> None:
    assert (
        "model.lr is -1; it must be a number above 0"
        in call("fit", "--config", "field.yaml", "--model.lr=-1", "--dry-run").err
    )
    said = call("fit", "--config", "field.yaml", "--model.backbone", "nobody/nothing", "--dry-run")
    assert said.code == 1
    assert "needs a network or a filled cache" in said.err
    assert said.err.count("\n") == 1
    assert "it must be --dry-run, or --dry-run=json" in call("fit", "--config", "field.yaml", "--dry-run=xml").err
