"""Signals to any process of a run, at any moment: it saves between two steps and is gone, with the right code."""

import contextlib
import os
import random
import shlex
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from callbacks import newest_checkpoint
from callbacks.saving.files import load_verified
from tests.faults.conftest import ALL, Tally, many
from tests.faults.processes import Run, differences, figures_of, started, state_of
from tests.runs import ROOT

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 75}
WORDS = {signal.SIGTERM: "terminated", signal.SIGINT: "interrupted", signal.SIGUSR1: "asked to make room"}
LIMIT = 30.0  # seconds
LONG = "--trainer.max_epochs=1000"

pytestmark = pytest.mark.usefixtures("interruptible")


def told(run: Run) -> str:
    """The one line that a run ends with; before it, another run's rows of metrics.csv may have been set aside."""
    lines = [line for line in run.err.splitlines() if not line.startswith("metrics.csv: ")]
    assert len(lines) == 1, run.err
    return lines[0]


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_signal_at_any_moment(processes: int, quick: list[str], tmp_path: Path, tally: Tally) -> None:
    rng = random.Random(processes)
    kind = f"signal to one of {processes} processes" if processes > 1 else "signal to a run's only process"
    slowest = 0.0
    ranks = [rank for _ in range(many(20, 1)) for rank in range(processes)]
    for i, rank in enumerate(ranks[-1:] if not ALL else ranks):
        tally.tried(kind)
        number = list(CODES)[i % 3]
        folder = tmp_path / f"{i}"
        # every second run validates and measures nearly all the time
        often = ["--trainer.val_check_interval=2"] if i % 2 else []
        with started(folder, *quick, LONG, *often, processes=processes) as run:
            time.sleep(rng.uniform(0.0, 9.0) if ALL else 6.0)
            run.kill(number, rank)
            sent = time.monotonic()
            codes = run.wait(LIMIT)
            slowest = max(slowest, time.monotonic() - sent)
        assert codes == [CODES[number]] * processes, run.err
        assert told(run).startswith(WORDS[number])
        if "is saved" in told(run):
            assert load_verified(newest_checkpoint(folder / "run"))["global_step"] > 0
        tally.survived(kind)
    asked = "all gone by themselves, saved, with one line and 143, 130 or 75; the slowest took"
    tally.tried(kind, 0, note=f"{asked} {slowest:.1f} s")


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES if ALL else [signal.SIGTERM])
def test_a_run_goes_on_from_a_signal_to_the_bit(number: int, quick: list[str], tmp_path: Path, tally: Tally) -> None:
    """Here the checkpoint is the one that the signal made, wherever the run was: in a step, in a validation."""
    kind = "signal, then --resume"
    argv = [*quick, "--trainer.val_check_interval=7", "--trainer.accumulate_grad_batches=2"]
    rng = random.Random(number)
    began = time.monotonic()
    with started(tmp_path / "whole", *argv) as run:
        assert run.wait() == [0], run.err
    duration = time.monotonic() - began
    whole = tmp_path / "whole" / "run"
    for i in range(many(2, 1)):
        tally.tried(kind, note="the same to the bit as a run never stopped")
        folder, line = tmp_path / str(i), argv
        for _ in range(3):
            with started(folder, *line) as run:
                time.sleep(rng.uniform(duration / 4, duration))
                run.kill(number)
                assert run.wait(LIMIT)[0] in (CODES[number], 0), run.err
            line = ["fit", "--resume=run"] if any((folder / "run/checkpoints").glob("*.ckpt")) else argv
        with started(folder, *line) as run:
            assert run.wait() == [0], run.err
        assert list(differences(state_of(whole), state_of(folder / "run"))) == []
        assert list(differences(figures_of(whole), figures_of(folder / "run"))) == []
        tally.survived(kind)


def fake_scontrol(folder: Path, code: int = 0) -> dict[str, str]:
    """An environment in which `scontrol` notes what it was asked for."""
    folder.mkdir(parents=True)
    script = folder / "scontrol"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {folder}/asked\n[ {code} = 0 ] || echo "Invalid job id" >&2\nexit {code}\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    slurm = {"JOB_ID": "77", "JOB_NAME": "field", "NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "SLURM_JOB_NODELIST": "localhost"} | {f"SLURM_{key}": value for key, value in slurm.items()}


def test_slurm_takes_a_run_back_into_its_queue(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    """USR1, `scontrol requeue`, and the same command once more, as SLURM gives it."""
    kind = "SLURM's USR1, requeued and started again"
    tally.tried(
        kind, note="scontrol requeue asked once, the second start goes on by itself, the end is the same to the bit"
    )
    argv = [*quick, "--config=slurm.yaml", "--trainer.devices=1", "--trainer.accelerator=cpu"]
    slurm = fake_scontrol(tmp_path / "bin")
    with started(tmp_path / "whole", *argv) as run:
        assert run.wait() == [0], run.err
    folder = tmp_path / "job"
    with started(folder, *argv, **slurm) as run:
        until = time.monotonic() + 60
        while "epoch 1/3" not in run.out and time.monotonic() < until:
            time.sleep(0.02)
        run.kill(signal.SIGUSR1)
        assert run.wait(LIMIT) == [75], run.err
    assert told(run).endswith("resume with: python train.py fit --resume run; job 77 is back in the queue")
    assert (tmp_path / "bin" / "asked").read_text() == "requeue 77\n"
    with started(folder, *argv, SLURM_RESTART_COUNT="1", **slurm) as run:
        assert run.wait() == [0], run.err
    assert run.out.startswith("resuming from run/checkpoints/step_")
    assert list(differences(state_of(tmp_path / "whole" / "run"), state_of(folder / "run"))) == []
    tally.survived(kind)


def test_a_job_that_cannot_be_requeued_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from cli import slurm

    for name, value in fake_scontrol(tmp_path / "bin", code=1).items():
        monkeypatch.setenv(name, value)
    assert slurm.asks(signal.SIGUSR1)
    assert not slurm.asks(signal.SIGTERM)
    assert slurm.requeue() == "; job 77 could not be requeued: Invalid job id"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "70")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    slurm.requeue()
    assert (tmp_path / "bin" / "asked").read_text() == "requeue 77\nrequeue 70_3\n"
    monkeypatch.delenv("SLURM_ARRAY_JOB_ID")
    monkeypatch.setenv("SLURM_JOB_ID", "77; rm -rf /")
    assert "no job that could be requeued" in slurm.requeue()
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("PATH", "")
    assert "could not be requeued: " in slurm.requeue()


@pytest.mark.parametrize("number", CODES if ALL else [signal.SIGINT])
def test_a_signal_before_anything_was_begun(number: int, quick: list[str], tmp_path: Path, tally: Tally) -> None:
    """While torch and Lightning are still being imported, as `python train.py` does it."""
    kind = "signal during the imports"
    for seconds in (0.3, 2.0) if ALL else (2.0,):
        tally.tried(kind, note="one line, 143, 130 or 75, no folder left")
        run = subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), *quick],
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        time.sleep(seconds)
        run.send_signal(number)
        _, err = run.communicate(timeout=LIMIT)
        assert run.returncode in (CODES[number], -number)  # −n: Python itself was not up yet
        if run.returncode > 0:
            assert err == f"{WORDS[number]}; nothing was started\n"
        assert list(tmp_path.iterdir()) == []
        tally.survived(kind)


def test_a_run_in_the_background_of_a_script(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    """A shell starts it with SIGINT ignored, which the terminal's Ctrl-C sends to all: it trains on until SIGTERM."""
    kind = "signal to a run in the background of a script"
    tally.tried(kind, note="SIGINT stays ignored, SIGTERM ends it, saved")
    line = shlex.join([sys.executable, "-u", str(ROOT / "train.py"), *quick, LONG])
    shell = subprocess.Popen(
        ["sh", "-c", f"{line} & echo $!; wait $!"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert shell.stdout is not None
    pid = int(shell.stdout.readline())
    try:
        epochs = (line for line in shell.stdout if line.startswith("epoch "))
        next(epochs)
        os.kill(pid, signal.SIGINT)
        seen = [next(epochs) for _ in range(3)]
        os.kill(pid, signal.SIGTERM)
        _, err = shell.communicate(timeout=LIMIT)
    finally:
        shell.kill()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert len(seen) == 3
    assert err == "terminated; the run is saved; resume with: python train.py fit --resume run\n"
    assert shell.returncode == CODES[signal.SIGTERM]
    tally.survived(kind)


@pytest.mark.slow
def test_a_process_that_is_lost_takes_no_other_with_it_for_ever(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    """Kill −9 of one rank: the others wait for it in a collective, find it gone, and end."""
    kind = "kill −9 of one of 2 processes"
    for i in range(many(10, 1)):
        tally.tried(kind, note="the other one ends by itself; --resume goes on")
        folder = tmp_path / str(i)
        with started(folder, *quick, LONG, "--checkpoint.every_n_train_steps=2", processes=2) as run:
            run.wait_for("epoch 1/")
            run.kill(signal.SIGKILL, rank=1 - i % 2)
            codes = run.wait(LIMIT)
        assert codes[1 - i % 2] == -signal.SIGKILL
        assert codes[i % 2] not in (0, -signal.SIGKILL), run.err
        step = load_verified(newest_checkpoint(folder / "run"))["global_step"]
        with started(folder, "fit", "--resume=run", f"--trainer.max_epochs={step // 12 + 1}", processes=2) as run:
            assert run.wait() == [0, 0], run.err
        tally.survived(kind)
