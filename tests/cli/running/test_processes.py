"""The command line as real processes: what a terminal shows, two of them together, and what ends them from outside."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Call
from tests.runs import ROOT, process

# Figures of one process and of two: other batches together, so other orders of fp32 sums.
TOLERANCE = 1e-5


@pytest.fixture
def quick(wordnet: str) -> list[str]:
    return ["--config", "field.yaml", "--data.nltk_data", wordnet, "--report.figures=false"]


def last(path: Path, key: str) -> float:
    with path.open() as stream:
        return [float(row[key]) for row in csv.DictReader(stream) if row.get(key)][-1]


@pytest.mark.slow  # tests/faults/test_world_sizes.py does the like at less cost
@pytest.mark.parametrize("config", ["lerp", "field"])
def test_two_processes_train_and_agree_with_one(tmp_path: Path, quick: list[str], call: Call, config: str) -> None:
    """Figures of a run on two ranks are those that one process finds for its checkpoint; LERP has points to lay out."""
    quick = ["--config", config, *quick[2:]]
    two = ["--config", "ddp.yaml", "--trainer.accelerator", "cpu", "--trainer.devices", "2", "--data.batch_size", "8"]
    two += ["--alpha_convergence.every_n_steps", "4"]  # the last step is one of these
    done = process("fit", *quick, *two, "--trainer.max_epochs", "1", "--output", "run", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines()[-1] == "ended after 12 steps: max_epochs (1) reached; run/report.md"
    run = tmp_path / "run"
    report = json.loads((run / "report.json").read_text())
    assert report["environment"]["devices"] == 2
    assert report["run"]["command"][:2] == ["train.py", "fit"]  # what was typed, not what was made of it
    assert {path.name for path in tmp_path.iterdir()} == {"run"}  # the second process took no folder of its own
    checkpoint = torch.load(run / "checkpoints" / "step_00000012.ckpt", weights_only=True)
    assert all(key.startswith("modulator.") for key in checkpoint["state_dict"])

    one = ["--trainer.devices", "1", "--trainer.strategy", "auto", "--trainer.accelerator", "cpu"]
    said = call("validate", *quick, *one, "--data.batch_size", "8", "--resume", "run")
    assert (said.code, said.err) == (0, "")
    for key in (
        "val/loss",
        "val/token_accuracy",
        "val/exact_match",
        "relational/pearson",
        "relational/held_out/pearson_lift_low",
        "pentachoron/cv",
        "alpha/mean",
    ):
        both = last(run / "metrics.csv", key)
        assert last(run / "metrics_validate.csv", key) == pytest.approx(both, rel=TOLERANCE, abs=1e-7), key


def started(tmp_path: Path, *argv: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-u", str(ROOT / "train.py"), *argv],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow  # tests/faults/test_signals.py does the like without the imports
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_with_one_line_and_loses_nothing(
    tmp_path: Path, quick: list[str], number: signal.Signals, code: int, call: Call
) -> None:
    often = ["--data.batch_size", "32", "--trainer.check_val_every_n_epoch", "1"]
    run = started(tmp_path, "fit", *quick, *often, "--trainer.max_epochs", "100", "--output", "run")
    assert run.stdout is not None
    try:
        for line in run.stdout:
            if line.startswith("epoch 1/100"):
                break
        run.send_signal(number)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == code
    word = "interrupted" if number == signal.SIGINT else "terminated"
    assert err == f"{word}; the run is saved; resume with: python train.py fit --resume run\n"
    assert json.loads((tmp_path / "run" / "report.json").read_text())["run"]["outcome"] == "interrupted"
    steps = max(int(path.stem[5:]) for path in (tmp_path / "run" / "checkpoints").glob("*.ckpt"))
    assert steps >= 6
    said = call("fit", "--resume", "run", "--trainer.max_epochs", str(-(-steps // 6) + 1))
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0].startswith(f"resuming from run/checkpoints/step_{steps:08d}.ckpt; changed:")


@pytest.mark.slow
def test_an_error_of_all_processes_is_told_once(tmp_path: Path, quick: list[str]) -> None:
    two = ["--trainer.accelerator", "cpu", "--trainer.devices", "2"]
    done = process("fit", *quick, *two, "--data.val_fraction", "0.999", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: data.val_fraction: 0.999 leaves none of")
    time.sleep(1)  # the second process goes when it sees that the first has gone
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_the_default_folder_and_a_users_leftover_variable(tmp_path: Path, quick: list[str]) -> None:
    environment = {"MODULANT_RUN": "/nowhere/at/all", "LOCAL_RANK": os.environ.get("LOCAL_RANK", "0")}
    done = process("fit", *quick, "--trainer.max_steps", "1", cwd=tmp_path, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs" / "field" / "version_0" / "report.md").is_file()
