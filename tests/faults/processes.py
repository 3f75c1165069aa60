"""Runs as real processes that start in no time: forked from a process that has imported everything.

A run is `train.main` with a command line, in a process group of its own, with its output in files. Only what happens
before the imports are done is left out; the few tests of that start `python train.py`.
"""

import csv
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from callbacks import newest_checkpoint
from tests.runs import main


@dataclass
class Run:
    """A process, or several of one run."""

    pids: list[int]
    folder: Path  # where it was started

    def kill(self, number: int = signal.SIGKILL, rank: int | None = None) -> None:
        for pid in self.pids if rank is None else [self.pids[rank]]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def wait(self, seconds: float = 120) -> list[int]:
        """Exit codes, −n for a signal n; whoever is not done in time is killed, and the test with it."""
        until, codes = time.monotonic() + seconds, {}
        while len(codes) < len(self.pids):
            for pid in self.pids:
                if pid not in codes and (found := os.waitpid(pid, os.WNOHANG))[0]:
                    codes[pid] = os.waitstatus_to_exitcode(found[1])
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"a run hangs: {len(codes)} of {len(self.pids)} have ended\n{self.err}")
            time.sleep(0.01)
        return [codes[pid] for pid in self.pids]

    def resident(self) -> float:
        """Memory of the first process in MiB; 0 when it is gone."""
        try:
            status = Path(f"/proc/{self.pids[0]}/status").read_text()
        except OSError:
            return 0.0
        line = next((line for line in status.splitlines() if line.startswith("VmRSS")), "VmRSS: 0 kB")
        return int(line.split()[1]) / 1024

    @property
    def out(self) -> str:
        return self._said("out.0")

    @property
    def err(self) -> str:
        return "".join(self._said(f"err.{rank}") for rank in range(len(self.pids)))

    def _said(self, name: str) -> str:
        file = self.folder / name
        return file.read_text() if file.is_file() else ""  # it has only just been forked

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until the first process has said something."""
        until = time.monotonic() + seconds
        while text not in self.out:
            if time.monotonic() > until:
                raise TimeoutError(f"nothing said {text!r}\n{self.out}\n{self.err}")
            time.sleep(0.02)


def start(folder: Path, *argv: str, processes: int = 1, **environment: str) -> Run:
    """Start `python train.py …` in a folder; several processes are started as torchrun would."""
    main()  # imported here, and not once in each
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        environment |= {"TORCHELASTIC_RUN_ID": "faults", "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": "0"}
        argv = (*argv, "--trainer.strategy=ddp", "--trainer.accelerator=cpu", f"--trainer.devices={processes}")
    pids = []
    for rank in range(processes):
        own = environment | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if processes > 1 else {})
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _become(folder, rank, argv, own)
        pids.append(pid)
    return Run(pids, folder)


def _become(folder: Path, rank: int, argv: Sequence[str], environment: dict[str, str]) -> None:
    code = 99
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        os.environ.update(environment)
        for number, name in ((1, f"out.{rank}"), (2, f"err.{rank}")):
            file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        torch.set_num_threads(1)
        try:
            main()(list(argv))
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def started(folder: Path, *argv: str, **settings: Any) -> Iterator[Run]:
    """The same; whatever is left of it at the end is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    run = start(folder, *argv, **settings)
    try:
        yield run
    finally:
        run.kill()


# Of each callback what is a measurement of the machine, and so another number each time.
_CLOCKS = {"seconds", "epoch_seconds"}


def state_of(run: Path) -> dict[str, Any]:
    """All that a run's last checkpoint says, but for clocks."""
    checkpoint: dict[str, Any] = torch.load(newest_checkpoint(run), weights_only=True)
    checkpoint["callbacks"] = {
        name: {key: value for key, value in state.items() if key not in _CLOCKS} if isinstance(state, dict) else state
        for name, state in checkpoint["callbacks"].items()
    }
    # How Lightning came to where it is, restarts included; where that is, is in the rest.
    checkpoint.pop("loops")
    return checkpoint


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where two states differ, to the bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() ^ other.keys():
            yield f"{path}.{key}: only one has it"
        for key in one.keys() & other.keys():
            yield from differences(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from differences(a, b, f"{path}[{i}]")
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if not torch.equal(one, other):
            yield f"{path}: tensors differ"
    elif one != other and not (one != one and other != other):  # NaN is NaN
        yield f"{path}: {one!r} and {other!r}"


def figures_of(run: Path) -> dict[str, list[tuple[int, str]]]:
    """metrics.csv as series of what was written last at each step, to the digit."""
    series: dict[str, dict[int, str]] = {}
    with (run / "metrics.csv").open() as stream:
        for row in csv.DictReader(stream):
            for key, cell in row.items():
                if cell and key != "step":
                    series.setdefault(key, {})[int(row["step"])] = cell
    return {key: sorted(values.items()) for key, values in series.items()}
