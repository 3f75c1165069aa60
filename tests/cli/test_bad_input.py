"""What a user can get wrong: one line that names the key or file and what would be right, and nothing left behind."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import T5Config

from tests.cli.conftest import Call
from tests.cli.mistakes import CASES, FIELD, LERP
from tests.runs import LEMMA, tiny_backbone


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything here is known before the backbone's weights are read."""

    def load(*_: Any) -> None:
        pytest.fail("the backbone was loaded before the error was found")

    monkeypatch.setattr("modulators.training.frozen.t5.load_backbone", load)


def one_error(call: Call, *argv: str) -> str:
    said = call(*argv)
    assert said.code == 1, said
    assert said.out == ""
    line, *rest = said.err.splitlines()
    assert line.startswith("error: "), said.err
    assert not rest, said.err
    assert len(line) < 600, line
    assert not os.path.exists("runs"), "an empty run folder was left"
    return line


@pytest.mark.parametrize("argv", CASES, ids=" ".join)
def test_one_line(call: Call, argv: tuple[str, ...]) -> None:
    Path("file").touch()
    line = one_error(call, *argv)
    for part in CASES[argv]:
        assert part in line


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model:\n  init_args:\n    lr: [1,\n", ("mine.yaml, line 4", "invalid YAML")),
        ("- a\n- b\n", ("mine.yaml: a configuration is a mapping", "a list")),
        ("", ("mine.yaml: a configuration is a mapping", "an empty file")),
        ("model: [a]\n", ("mine.yaml: model is ['a']; it must be a mapping",)),
        ("trainer: 3\n", ("mine.yaml: trainer is 3; it must be a mapping",)),
        ("modell: {}\n", ("mine.yaml: modell is not a key; did you mean model?",)),
        ("trainer:\n  max_epoch: 1\n", ("mine.yaml: trainer.max_epoch is not a key",)),
        ("model:\n  init_args:\n    lrr: 1\n", ("mine.yaml: model.lrr is not a key; did you mean model.lr?",)),
        ("model:\n  init_args: 3\n", ("mine.yaml: model.init_args is 3",)),
        ("model:\n  class_path: evil.Foo\n", ("mine.yaml: model: evil.Foo is none of",)),
        ("model:\n  init_args:\n    lr: 1\n    lr: 2\n", ("mine.yaml, line 4", "lr stands twice, in lines 3 and 4")),
        ("trainer: {}\ndata: {}\ntrainer: {}\n", ("trainer stands twice, in lines 1 and 3",)),
        (
            "checkpoint:\n  save_top_k: [1]\n",
            ("mine.yaml: checkpoint.save_top_k is [1]; it must be -1 or an integer of at least 1",),
        ),
        ("output: file/run\n", ("--output: file/run cannot be a folder",)),
    ],
)
def test_wrong_yaml(call: Call, text: str, parts: tuple[str, ...]) -> None:
    Path("mine.yaml").write_text(text)
    Path("file").touch()
    line = one_error(call, *FIELD, "--config", "mine.yaml")
    for part in parts:
        assert part in line


def test_nothing_is_imported_by_name(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stranger.py").write_text("open('was-imported', 'w')\nclass Foo: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for key in ("model", "data", "model.modulator", "trainer.callbacks", "trainer.logger", "trainer.strategy"):
        Path("mine.yaml").write_text(_nested(key, "{class_path: stranger.Foo}"))
        one_error(call, *FIELD, "--config", "mine.yaml")
        one_error(call, *FIELD, f"--{key}", "stranger.Foo")
    assert not Path("was-imported").exists()


def _nested(key: str, value: str) -> str:
    for part in reversed(key.split(".")):
        value = f"{{{part}: {value}}}"
    return value


def test_damaged_wordnets(call: Call, wordnet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray((Path(wordnet) / "corpora" / "wordnet.zip").read_bytes())
    content[len(content) // 2] ^= 1
    for name, damaged in (("cut", bytes(content[:1000])), ("flipped", bytes(content))):
        file = tmp_path / name / "corpora" / "wordnet.zip"
        file.parent.mkdir(parents=True)
        file.write_bytes(damaged)
        said = call(*FIELD, "--data.nltk_data", str(tmp_path / name))
        assert said.code == 1
        assert said.err.startswith(f"error: data.nltk_data: {file}: ")
        assert said.err.count("\n") == 1
    assert not os.path.exists("runs")
    # … and the bundled one, which is known by its checksum
    monkeypatch.setattr("modulant.lexicon.archive.WORDNET_ZIP", tmp_path / "flipped" / "corpora" / "wordnet.zip")
    assert "the bundled WordNet is damaged" in one_error(call, *FIELD)


def test_a_tokenizer_in_which_nothing_matches(call: Call, wordnet: str, tmp_path: Path) -> None:
    from datamodules.unigram import train_unigram

    backbone = tmp_path / "t5"
    tokenizer = train_unigram(["ж ё ю жю"] * 50, 110)
    tokenizer.save_pretrained(backbone)
    config = T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    config.save_pretrained(backbone)
    line = one_error(call, *FIELD, "--data.nltk_data", wordnet, "--model.backbone", str(backbone))
    assert f"{backbone}: 0 lemmas of WordNet are one token" in line


def test_a_checkpoint_of_another_modulator_changes_nothing(
    call: Call, wordnet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # here weights are read: the checkpoint is looked into after them
    monkeypatch.chdir(tmp_path)
    quick = ("--data.nltk_data", wordnet, "--report.figures", "false", "--relational.baselines", "false")
    assert call(*FIELD, *quick, "--trainer.max_steps", "1", "--output", "mine").code == 0
    before = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    said = call(*LERP, *quick, "--resume", "mine")
    assert said.code == 1
    assert said.err.splitlines()[-1].startswith("error: ")
    assert "another modulator" in said.err
    assert len(said.err.splitlines()[-1]) < 400
    assert {path: path.read_bytes() for path in before} == before
    # a run is never begun again over its own checkpoints
    line = call(*FIELD, *quick, "--output", "mine").err
    assert "mine already holds checkpoints" in line
    shutil.rmtree("mine/checkpoints")


def test_a_run_that_has_trained_more_than_it_may(
    call: Call, wordnet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    backbone = ("--model.backbone", tiny_backbone(tmp_path / "t5"))
    quick = ("--data.nltk_data", wordnet, "--report.figures", "false", "--relational.baselines", "false")
    few = ("--trainer.max_epochs", "2", "--trainer.limit_train_batches", "3")
    assert call(*FIELD, *LEMMA, *quick, *backbone, *few, "--output", "mine").code == 0
    before = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    for changed, line in (
        (("--trainer.max_epochs", "1"), "trainer.max_epochs is 1, and the run is in epoch 2 already"),
        (("--trainer.max_steps", "5"), "trainer.max_steps is 5, and the run has trained step 6 already"),
    ):
        said = call("fit", "--resume", "mine", *changed)
        assert (said.code, said.err.count("\n")) == (1, 1)
        assert said.err.startswith(f"error: {line}; give at least that many, or measure")
    assert {path: path.read_bytes() for path in before} == before


def test_more_devices_than_there_are(call: Call) -> None:
    import torch

    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        line = one_error(call, *FIELD, "--trainer.accelerator", "gpu", "--trainer.devices", str(count + 1))
    else:
        line = one_error(call, *FIELD, "--trainer.accelerator", "gpu", "--trainer.devices", "2")
    assert line.startswith("error: trainer: ")


def test_debug_shows_the_traceback(call: Call) -> None:
    with pytest.raises(ValueError, match="is not a subcommand"):
        call("--debug", "fitt")


def test_t5_without_weights_is_refused_before_training(call: Call, wordnet: str, tmp_path: Path) -> None:
    """Configuration and tokenizer are there, a tensor file is not: told when it is read, and nothing is left."""
    from modulant.assets import MINI
    from modulant.backbones.t5 import load_backbone

    backbone = tmp_path / "t5"
    backbone.mkdir()
    for path in MINI.iterdir():
        if path.suffix == ".json" or path.suffix == ".model":
            shutil.copy(path, backbone)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("modulators.training.frozen.t5.load_backbone", load_backbone)
        line = one_error(call, *FIELD, "--data.nltk_data", wordnet, "--model.backbone", str(backbone))
    assert "model.backbone: the weights of" in line
