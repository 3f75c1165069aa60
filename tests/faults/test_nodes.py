"""Two machines, played by two torchrun agents on this one: they learn what one process does, and neither outlives the
other."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
import torch

from callbacks import newest_checkpoint
from callbacks.saving.files import load_verified
from tests.faults.conftest import Tally
from tests.runs import ROOT, main

LIMIT = 60.0  # seconds
# fp32's rounding in another order of sums; the edge expert's gradient is rounding noise, which AdamW makes steps of
WEIGHT = 2e-6
NODES = "one of two machines (torchrun agents) lost"

pytestmark = pytest.mark.slow


@contextmanager
def nodes(folder: Path, *argv: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Two agents that meet on a free port, each with one process of `python train.py …`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meet = f"127.0.0.1:{free.getsockname()[1]}"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", meet, "--rdzv-id", "nodes", str(ROOT / "train.py"), *argv]
    with ExitStack() as files:
        agents = [
            subprocess.Popen(
                launch,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
                stdout=files.enter_context((folder / f"out.{i}").open("w")),
                stderr=files.enter_context((folder / f"err.{i}").open("w")),
                text=True,
            )
            for i in range(2)
        ]
    try:
        yield agents
    finally:
        for agent in agents:
            for pid in [*children(agent.pid), agent.pid]:
                kill(pid)
            agent.wait()


def children(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in listed.read_text().split()] if listed.is_file() else []


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def overlay(quick: list[str]) -> list[str]:
    return [*quick, "--config=multi_node.yaml", "--trainer.accelerator=cpu", "--trainer.devices=1"]


def wait_for_checkpoint(run: Path) -> None:
    until = time.monotonic() + 3 * LIMIT
    while not list((run / "checkpoints").glob("step_*.ckpt.sha256")):
        assert time.monotonic() < until, "nothing was saved"
        time.sleep(0.1)


def test_two_machines_learn_what_one_process_does(
    quick: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two, one = tmp_path / "two", tmp_path / "one"
    two.mkdir()
    one.mkdir()
    experts = "--model.modulator.expert_ks=[2,4]"
    with nodes(two, *overlay(quick), experts) as agents:
        assert [agent.wait(3 * LIMIT) for agent in agents] == [0, 0], (two / "err.0").read_text()
    said = sorted((two / f"out.{i}").read_text() for i in range(2))
    assert said[0] == ""  # one process speaks, and one folder is written
    assert "ended after" in said[1]
    assert {path.name for path in two.iterdir()} == {"run", "out.0", "out.1", "err.0", "err.1"}

    monkeypatch.chdir(one)
    main()([*quick, experts, "--data.batch_size=16"])
    expected = load_verified(newest_checkpoint(one / "run"))
    found = load_verified(newest_checkpoint(two / "run"))
    assert found["global_step"] == expected["global_step"]
    for key, weight in expected["state_dict"].items():
        assert torch.allclose(found["state_dict"][key], weight, rtol=0, atol=WEIGHT), key


@pytest.mark.parametrize("whole", [True, False], ids=["the machine", "its agent alone"])
def test_when_one_is_lost_the_other_ends(whole: bool, quick: list[str], tmp_path: Path, tally: Tally) -> None:
    tally.tried(NODES, note="the other ends within a minute and says so in one line; the run goes on by --resume")
    long = [*overlay(quick), "--trainer.max_epochs=1000", "--checkpoint.every_n_train_steps=2"]
    with nodes(tmp_path, *long) as agents:
        wait_for_checkpoint(tmp_path / "run")
        processes = [children(agent.pid) for agent in agents]
        for pid in [agents[1].pid, *(processes[1] if whole else [])]:
            kill(pid)
        assert agents[0].wait(LIMIT) != 0
        until = time.monotonic() + LIMIT
        while any(Path(f"/proc/{pid}/cmdline").exists() for pid in [*processes[0], *processes[1]]):
            assert time.monotonic() < until, "a process outlives its run"
            time.sleep(0.1)
    ours = [
        line
        for i in range(2)
        for line in (tmp_path / f"err.{i}").read_text().splitlines()
        if line.startswith(("error", "terminated"))
    ]
    assert len(ours) == 1, ours
    assert ours[0].startswith("error: another process" if whole else "terminated; the run is saved")
    steps = int(load_verified(newest_checkpoint(tmp_path / "run"))["global_step"])
    with nodes(tmp_path, "fit", "--resume=run", f"--trainer.max_steps={steps + 2}") as agents:
        assert [agent.wait(3 * LIMIT) for agent in agents] == [0, 0], (tmp_path / "err.0").read_text()
    assert load_verified(newest_checkpoint(tmp_path / "run"))["global_step"] == steps + 2
    tally.survived(NODES)
