"""Runs processes side by side without asking more of the machine than it has, and stops them so that they are saved.

Each process has threads or devices of its own: two torch processes that share two cores are six times slower than one.
Each is the head of its own process group, so that Ctrl-C reaches this process alone, which passes it on once.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from probes.controls.plan import Run

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.2


@dataclass(frozen=True)
class Machine:
    """What runs may use.

    Attributes:
        jobs: runs side by side.
        slots: the environment of the run in each slot.
    """

    jobs: int
    slots: tuple[Mapping[str, str], ...]


def share(jobs: int | None, runs: int, trainer: Mapping[str, Any]) -> Machine:
    """Deal out cores and CUDA devices.

    Args:
        jobs: as asked for; None: as many as run well side by side.
        runs: that are left.
        trainer: the resolved trainer section, for accelerator and devices.
    """
    cores = len(os.sched_getaffinity(0))
    devices = cuda_devices() if trainer.get("accelerator") in ("auto", "gpu", "cuda", None) else []
    wanted = trainer.get("devices")
    each = wanted if isinstance(wanted, int) and wanted > 0 else len(wanted) if isinstance(wanted, list) else 1
    if devices and wanted in ("auto", -1, "-1"):
        each = len(devices)
    groups = [devices[i : i + each] for i in range(0, len(devices) - each + 1, each)] or [devices]
    best = len(groups) if devices else max(1, cores // each)
    jobs = max(1, min(jobs or best, runs))
    threads = max(1, cores // (jobs * each))
    # a user who has set fewer knows of other work on this machine
    mine = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(threads, int(mine)) if mine.isdigit() and int(mine) > 0 else threads
    slots = []
    for i in range(jobs):
        slot = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
        if devices:
            slot["CUDA_VISIBLE_DEVICES"] = ",".join(groups[i % len(groups)])
        slots.append(slot)
    return Machine(jobs, tuple(slots))


def cuda_devices() -> list[str]:
    """Devices that a process started here would see; torch is not asked, as it would take one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False)
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]


@dataclass
class Job:
    """A run that is on its way."""

    run: Run
    process: subprocess.Popen[bytes]
    slot: int
    began: float = field(default_factory=time.monotonic)
    position: Any = None  # where it stood when it began, for whoever shows the progress

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Stop:
    """Within it the signals that end a command are noted, and end nothing by themselves.

    Attributes:
        signal: the first that came.
        count: how many.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        for number in STOPPING:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or number
        self.count += 1


class Runner:
    """Works through runs.

    Args:
        machine: what they may use.
        lock: a file that each of them keeps open: OUTPUT stays locked while any of them lives.
        stop: asked between two looks.
    """

    def __init__(self, machine: Machine, lock: int, stop: Stop) -> None:
        self.machine, self.lock, self.stop = machine, lock, stop
        self.running: list[Job] = []
        self.waiting: list[Run] = []

    def work(
        self,
        runs: Sequence[Run],
        command: Callable[[Run], list[str] | None],
        started: Callable[[Job], None],
        ended: Callable[[Job, int], None],
        look: Callable[["Runner"], None],
    ) -> list[Run]:
        """Start each run as soon as it can be; return those that never could.

        Args:
            runs: in the order in which to start them.
            command: of a run; None where it has to wait for another.
            started: told of each that begins.
            ended: told of each that ends, with its exit code.
            look: called some times a second.
        """
        self.waiting = list(runs)
        signalled = 0
        try:
            while True:
                for job in [job for job in self.running if job.process.poll() is not None]:
                    self.running.remove(job)
                    ended(job, job.process.returncode)
                if self.stop.signal is None:
                    self._fill(command, started)
                if not self.running:
                    return self.waiting
                if signalled < self.stop.count:
                    # saved at the first, gone at the second
                    self._signal(signal.SIGINT if signalled == 0 else signal.SIGKILL)
                    signalled = self.stop.count
                look(self)
                time.sleep(_POLL_S)
        finally:
            self._signal(signal.SIGKILL)  # none is left here but after an error of our own

    def _fill(self, command: Callable[[Run], list[str] | None], started: Callable[[Job], None]) -> None:
        for run in list(self.waiting):
            free = sorted(set(range(self.machine.jobs)) - {job.slot for job in self.running})
            if not free or self.stop.signal is not None:
                return
            if (words := command(run)) is not None:
                self.waiting.remove(run)
                self.running.append(job := Job(run, self._start(words, run.log, free[0]), free[0]))
                started(job)

    def _start(self, words: Sequence[str], log: Path, slot: int) -> subprocess.Popen[bytes]:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            output.write(f"$ {' '.join(words)}\n".encode())
            output.flush()
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self.machine.slots[slot],
                pass_fds=(self.lock,),
                process_group=0,
            )

    def _signal(self, number: signal.Signals) -> None:
        for job in self.running:
            if job.process.poll() is None:
                os.killpg(job.process.pid, number)
