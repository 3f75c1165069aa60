"""Trains several runs side by side: their share of the machine, their processes, what became of each, how they stop.

Each process has its own threads or devices: two torch processes that share two cores are six times slower than one.
Each leads its own process group, so that Ctrl-C reaches this process alone, which passes it on once. One loop polls the
processes: a pool of threads that wait for them would need the same loop, for signals and progress, and locks besides.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from probes.controls.plan import Run, State, state_of

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.2

Slots = Sequence[Mapping[str, str]]  # runs side by side: what each has in its environment


def share(jobs: int | None, runs: int, trainer: Mapping[str, Any]) -> Slots:
    """Divide cores and CUDA devices among runs.

    Args:
        jobs: runs side by side; None: as many as run well.
        runs: how many there are to do.
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
    common = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    own = [{"CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} if devices else {} for i in range(jobs)]
    return [common | devices_of for devices_of in own]


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
    """A run that is training, in one of the slots."""

    run: Run
    process: subprocess.Popen[bytes]
    slot: int

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and all that it has started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


class Stop:
    """Within it the signals that end a command are noted, and end nothing by themselves.

    An ignored one stays without effect: background jobs start with SIGINT ignored, nohup's with SIGHUP. The handler
    replaces it all the same, since the runs would inherit it, and SIGINT is how they are ended.

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
            self._before[number] = signal.getsignal(number)
            signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._before[number] is signal.SIG_IGN:
            return
        self.signal = self.signal or number
        self.count += 1


class Runner:
    """Starts processes, and watches over them.

    Args:
        slots: one process in each.
        lock: a file that each of them keeps open: OUTPUT stays locked while any of them lives.
        stop: looked at between two polls.
    """

    def __init__(self, slots: Slots, lock: int, stop: Stop) -> None:
        self.slots, self.lock, self.stop = slots, lock, stop
        self.running: list[Job] = []

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
            command: the command line of a run; None where it has to wait for another run.
            started: called with each that starts.
            ended: called with each that ends, and its exit code.
            look: called some times a second.
        """
        waiting = list(runs)
        signalled = 0
        try:
            while True:
                for job in [job for job in self.running if job.process.poll() is not None]:
                    self.running.remove(job)
                    ended(job, job.process.returncode)
                for run in list(waiting):
                    free = sorted(set(range(len(self.slots))) - {job.slot for job in self.running})
                    if not free or self.stop.signal is not None:
                        break
                    if (words := command(run)) is not None:
                        waiting.remove(run)
                        self.running.append(job := Job(run, self._start(words, run, free[0]), free[0]))
                        started(job)
                if not self.running:
                    return waiting
                if signalled < self.stop.count:
                    # saved at the first, gone at the second
                    self._signal(signal.SIGINT if signalled == 0 else signal.SIGKILL)
                    signalled = self.stop.count
                look(self)
                time.sleep(_POLL_S)
        finally:
            self._signal(signal.SIGKILL)  # none is left here but after an error of our own

    def _start(self, words: Sequence[str], run: Run, slot: int) -> subprocess.Popen[bytes]:
        run.log.parent.mkdir(parents=True, exist_ok=True)
        with run.log.open("ab") as output:
            output.write(f"$ {' '.join(words)}\n".encode())
            output.flush()
            return subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | self.slots[slot],
                pass_fds=(self.lock,),
                process_group=0,
            )

    def _signal(self, number: signal.Signals) -> None:
        for job in self.running:
            job.signal(number)


def train(
    left: Sequence[Run],
    total: int,
    slots: Slots,
    lock: int,
    command: Callable[[Run], list[str] | None],
    outcome: Callable[[Run, int, bool], tuple[bool, str]],
    trainer: Mapping[str, Any],
    about: Callable[[Run], str] = lambda run: "",
    hopeless: Callable[[Run], bool] = lambda run: False,
) -> tuple[int, list[Run]]:
    """Train runs and show how far they are.

    Args:
        left: the runs to do.
        total: how many runs there are with those that were done before.
        slots, lock: as `Runner` has them.
        command: the command line of a run; None where it has to wait for another run.
        outcome: of a run that has ended, its exit code, and whether the command is being stopped: whether the run is
            done, and a line about it.
        trainer: the resolved trainer section, for a run's budget.
        about: what to say of a run that starts.
        hopeless: asked several times a second of each run that trains: whether to end it, saved.

    Returns:
        The exit code, 0 where all are done, 1 where one is not, 128 + the signal that ended it; and the runs that could
        never start.
    """
    from probes.controls.progress import Display

    display = Display(left, total, trainer)
    failed: list[str] = []

    def ended(job: Job, code: int) -> None:
        done, line = outcome(job.run, code, stop.signal is not None)
        if not done and stop.signal is None:
            failed.append(f"{job.run.name}: {line}")
        display.ended(job.run, done, f"{job.run.name}: {line}")

    def look(runner: Runner) -> None:
        for job in runner.running:
            if hopeless(job.run):
                job.signal(signal.SIGINT)
        display.look([job.run for job in runner.running], stop.signal is not None)

    with Stop() as stop, display:
        display.say(
            f"{len(left)} of {total} runs to do, {len(slots)} side by side with "
            f"{slots[0]['OMP_NUM_THREADS']} thread(s) each, into {left[0].folder.parents[1]}"
        )
        never = Runner(slots, lock, stop).work(
            left, command, lambda job: display.started(job.run, about(job.run)), ended, look
        )
    if stop.signal is not None:
        word = "interrupted" if stop.signal == signal.SIGINT else "terminated"
        again = shlex.join(["python", "probe.py", *sys.argv[1:]])
        print(f"{word}; {display.done} of {total} runs are done; resume with: {again}", file=sys.stderr, flush=True)
        return 128 + stop.signal, []
    for line in failed:
        print(line, file=sys.stderr, flush=True)
    return int(bool(failed or never)), never


def unfinished(run: Run, code: int, stopping: bool) -> str:
    """A line about a run that has ended and is not done."""
    if stopping:
        return "saved" if state_of(run) is State.BEGUN else "stopped before anything was saved"
    lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines() if run.log.is_file() else []
    last = next((line.strip().removeprefix("error: ") for line in reversed(lines) if line.strip()), "")
    return f"failed ({last or f'exit code {code}'}); {run.log}"
