"""On a GPU: each way to run learns what a CPU learns, runs repeat and resume to the bit, and no step waits.

Whole runs of the command line. What is compared with a CPU is the loss at some of the first 20 steps on `mini`.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pytest
import torch
from filelock import FileLock

from tests.faults.processes import differences, figures_of, state_of
from tests.runs import LEMMA, ROOT, SOURCE, main, process, small_wordnet, tiny_backbone
from tests.tiny_families import build
from tests.waits import with_callback
from tests.word_tokenizer import save_word_tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

FIELD, LERP = ("--config", "field.yaml"), ("--config", "lerp.yaml")
UPPER = ("--model.layers", "[3, 4, 5]", "--data.regroup", "false")  # a cache keeps the members of a batch together
MATCHED = ("--model.n_parameters", "9733")


class Way(NamedTuple):
    """A run on a GPU.

    Attributes:
        what: what the CPU's run is given too.
        how: what the GPU's alone is given.
        tolerance: of the training loss; None where it only has to end.
    """

    what: tuple[str, ...]
    how: tuple[str, ...] = ()
    tolerance: float | None = 1e-3


WAYS = {
    "field": Way(FIELD),
    "LERP": Way(LERP),
    "field, lemma": Way((*FIELD, *LEMMA)),
    "LERP, lemma": Way((*LERP, *LEMMA)),
    "the source's field": Way((*FIELD, *SOURCE)),
    "LoRA": Way((*FIELD, "--config", "controls/lora.yaml", *MATCHED)),
    "IA³": Way((*FIELD, "--config", "controls/ia3.yaml", *MATCHED)),
    "full": Way((*FIELD, "--config", "controls/full.yaml")),
    "bf16": Way(FIELD, ("--config", "bf16.yaml"), 5e-2),
    "bf16, LERP": Way(LERP, ("--config", "bf16.yaml"), 5e-2),
    # the scaler's first steps may be left out
    "fp16": Way(FIELD, ("--trainer.precision", "16-mixed"), None),
    "compiled": Way(FIELD, ("--model.compile", "true"), 2e-3),
    "compiled, LERP": Way(LERP, ("--model.compile", "true"), 2e-3),
    "CUDA graphs": Way(FIELD, ("--model.compile", "reduce-overhead"), 2e-3),
    "cache in memory": Way((*FIELD, *UPPER), ("--model.cache", "memory")),
    "cache on disk": Way((*FIELD, *UPPER), ("--model.cache", "disk")),
    "checkpointing": Way(FIELD, ("--model.gradient_checkpointing", "true")),
    "DDP": Way(FIELD, ("--config", "ddp.yaml", "--trainer.devices", "1")),
    "FSDP2": Way(FIELD, ("--config", "fsdp.yaml", "--trainer.devices", "1"), 5e-2),
    "FSDP2, LERP": Way(LERP, ("--config", "fsdp.yaml", "--trainer.devices", "1"), 5e-2),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_gpu_learns_what_a_cpu_does(name: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    way = WAYS[name]
    data = ("--data.nltk_data", str(small_wordnet(tmp_path / "nltk", 700)), "--data.batch_size", "32")
    losses = _losses(tmp_path, *way.what, *way.how, *data, "--trainer.accelerator", "cuda")
    assert len(losses) == 4  # of 20 steps, every fifth
    if way.tolerance is None:
        assert all(loss == loss for loss in losses)
        return
    # the workers of pytest-xdist share the CPU's
    place = tmp_path_factory.getbasetemp().parent / "on_a_cpu" / "_".join(way.what).replace("/", "_")
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place / "lock"):
        if not (file := place / "losses.json").is_file():
            file.write_text(json.dumps(_losses(place, *way.what, *data, "--trainer.accelerator", "cpu")))
    assert losses == pytest.approx(json.loads(file.read_text()), abs=way.tolerance)


@pytest.mark.parametrize(("config", "model_type"), [("encoder.yaml", "bert"), ("causal.yaml", "llama")])
def test_each_family_learns_what_it_does_on_a_cpu(config: str, model_type: str, tmp_path: Path) -> None:
    data = str(small_wordnet(tmp_path / "nltk"))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    template = {"bert": "[BOS] $A [EOS]", "llama": "[BOS] $A"}[model_type]
    folder = str(tmp_path / model_type)
    n_words = save_word_tokenizer(folder, data, special, template)
    torch.manual_seed(0)
    build(model_type, vocab_size=n_words).save_pretrained(folder)
    words = ["--config", config, "--data.nltk_data", data, "--data.batch_size", "32", "--model.backbone", folder]
    cpu, gpu = (_losses(tmp_path / device, *words, "--trainer.accelerator", device) for device in ("cpu", "cuda"))
    assert gpu == pytest.approx(cpu, abs=1e-3)


def _losses(folder: Path, *words: str) -> list[float]:
    """Training losses of a short run."""
    folder.mkdir(exist_ok=True)
    run = process("fit", *words, "--config", "debug.yaml", "--output", str(folder / "run"), cwd=folder)
    assert run.returncode == 0, run.stderr
    assert json.loads((folder / "run" / "report.json").read_text())["run"]["outcome"] == "finished"
    found = figures_of(folder / "run")
    [key] = [key for key in ("train/loss", "train/loss_step") if key in found]
    return [float(value) for _, value in found[key]]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("gpu")
    return [
        *("--data.nltk_data", str(small_wordnet(folder / "nltk")), "--data.batch_size", "8"),
        *("--model.backbone", tiny_backbone(folder / "backbone"), "--trainer.max_epochs", "2"),
        *("--relational.bootstrap", "0", "--relational.baselines", "false", "--report.figures", "false"),
        *("--trainer.accelerator", "cuda"),
    ]


NARROW = {"field.yaml": [], "lerp.yaml": ["--model.modulator.n_geometric_dims", "8"]}  # the tiny stream's width is 16


@pytest.mark.parametrize("config", NARROW)
def test_runs_repeat_and_resume_to_the_bit(config: str, words: list[str], tmp_path: Path) -> None:
    argv = ["fit", "--config", config, *words, *NARROW[config], "--checkpoint.every_n_train_steps", "4"]
    for name in ("one", "again"):
        done = process(*argv, "--output", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    _equal(tmp_path / "one", tmp_path / "again")

    with _started(*argv, "--output", "killed", cwd=tmp_path) as run:
        while run.poll() is None and not any((tmp_path / "killed" / "checkpoints").glob("*.sha256")):
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    resumed = process("fit", "--resume", "killed", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    _equal(tmp_path / "one", tmp_path / "killed")


def _started(*argv: str, cwd: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, str(ROOT / "train.py"), *argv]
    return subprocess.Popen(words, cwd=cwd, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _equal(one: Path, other: Path) -> None:
    assert list(differences(state_of(one), state_of(other))) == []
    assert list(differences(figures_of(one), figures_of(other))) == []


class _Guard(pl.Callback):
    """CUDA itself refuses to wait, but at the first step and those that log."""

    logs_every = 10

    def __init__(self) -> None:
        self.seen = 0

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.seen += 1
        step = trainer.global_step
        torch.cuda.set_sync_debug_mode("default" if step == 0 or (step + 1) % self.logs_every == 0 else "error")

    def on_train_epoch_end(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_validation_start(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, *_: Any) -> None:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def guard() -> Iterator[_Guard]:
    with with_callback(guard := _Guard()):
        yield guard
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("overlays", [(), LEMMA], ids=["relational", "lemma"])
@pytest.mark.parametrize("config", NARROW)
def test_no_step_waits(config: str, overlays: tuple[str, ...], words: list[str], guard: _Guard, tmp_path: Path) -> None:
    main()(["fit", "--config", config, *overlays, *words, *NARROW[config], "--output", str(tmp_path / "run")])
    assert guard.seen == 2 * 23  # 180 entries, 8 a batch
