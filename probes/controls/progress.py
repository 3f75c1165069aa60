"""How far a command is: bars on a terminal, plain lines elsewhere; read from what the runs have written."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from modulant.reports.wording import duration
from probes.controls.plan import Run
from probes.controls.runner import Job, Runner

_PLAIN_EVERY_S = 60.0
_TAIL = 1 << 16  # bytes; a row of metrics.csv has a few thousand


def position(folder: Path) -> tuple[int, int] | None:
    """Epoch, from 0, and step that a run has last written down; None before it has."""
    try:
        with (folder / "metrics.csv").open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()[0 if size <= _TAIL else 1 :]
    except OSError:
        return None
    rows = [cells for line in lines if (cells := line.split(",", 2))[0].isdigit() and len(cells) > 2]
    if not rows:
        return None
    epoch = next((int(cells[1]) for cells in reversed(rows) if cells[1].isdigit()), 0)
    return epoch, int(rows[-1][0]) + 1


def fraction(at: tuple[int, int] | None, trainer: Mapping[str, Any]) -> float:
    """How much of its budget a run has behind it, by its epochs or, where those are unbounded, its steps."""
    epochs, steps = trainer.get("max_epochs") or 0, trainer.get("max_steps") or 0
    if at is None:
        return 0.0
    by = [at[0] / epochs] if epochs > 0 else []
    by += [at[1] / steps] if steps > 0 else []
    return min(1.0, max(by, default=0.0))


def remaining(known: Sequence[float], running: Sequence[tuple[float, float]], waiting: int, jobs: int) -> float | None:
    """Seconds until all is done, or None while nothing can be said.

    Args:
        known: seconds of whole runs.
        running: seconds so far, and the fraction of its own work that this took.
        waiting: runs that have not begun.
        jobs: side by side.

    >>> remaining([100.0], [(50.0, 0.5), (10.0, 0.1)], 2, 2)
    170.0
    """
    guesses = [seconds / done for seconds, done in running if done > 0]
    if not known and not guesses:
        return None
    usual = sum(known) / len(known) if known else sum(guesses) / len(guesses)
    left = [max(0.0, (seconds / done if done > 0 else usual) - seconds) for seconds, done in running]
    return max(max(left, default=0.0), (sum(left) + usual * waiting) / jobs)


class Display:
    """Shows a command's progress.

    Args:
        done: runs that were whole before.
        total: runs in all.
        seconds: how long those took.
        trainer: the resolved trainer section, for a run's budget.
        console: where to; a terminal gets bars.
    """

    def __init__(
        self,
        done: int,
        total: int,
        seconds: Sequence[float],
        trainer: Mapping[str, Any],
        console: Console | None = None,
    ) -> None:
        self.console = console or Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.done, self.total, self.known, self.trainer = done, total, list(seconds), trainer
        self._began = self._last = time.monotonic()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        if self.console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}"), console=self.console
            )
            self._all = self._bars.add_task("runs", total=total, completed=done, text="")

    def __enter__(self) -> "Display":
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bars is not None:
            text = f"{self.done} of {self.total} runs, {duration(time.monotonic() - self._began, digits=0)}"
            self._bars.update(self._all, completed=self.done, text=text)
            self._bars.stop()

    def say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)
        self.console.file.flush()

    def started(self, job: Job, resumed: bool) -> None:
        job.position = fraction(position(job.run.folder), self.trainer) if resumed else 0.0
        if self._bars is not None:
            self._tasks[job.run.name] = self._bars.add_task(f"  {job.run.name}", total=1.0, text="")
        else:
            self.say(f"{job.run.name} {'goes on' if resumed else 'begins'}; {job.run.log}")

    def ended(self, job: Job, whole: bool, line: str) -> None:
        """A run has ended; whole ones count."""
        if whole:
            self.done += 1
            self.known.append(job.seconds / max(1e-6, 1 - (job.position or 0.0)))
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(job.run.name))
        self.say(line)
        self._last = 0.0  # and how far that leaves the whole

    def look(self, runner: Runner) -> None:
        at = [(job, position(job.run.folder)) for job in runner.running]
        if self._bars is not None:
            for job, where in at:
                self._bars.update(
                    self._tasks[job.run.name], completed=fraction(where, self.trainer), text=self._where(job.run, where)
                )
            self._bars.update(self._all, completed=self.done, text=self._summary(runner, at))
        elif time.monotonic() - self._last > _PLAIN_EVERY_S:
            self._last = time.monotonic()
            running = ", ".join(f"{job.run.name} ({self._where(job.run, where)})" for job, where in at)
            self.say(f"{self._summary(runner, at)}; running: {running}")

    def _summary(self, runner: Runner, at: Sequence[tuple[Job, tuple[int, int] | None]]) -> str:
        own = [(job.seconds, max(0.0, fraction(where, self.trainer) - (job.position or 0.0))) for job, where in at]
        left = remaining(self.known, own, len(runner.waiting), runner.machine.jobs)
        about = f", about {duration(left, digits=0)} left" if left is not None else ""
        if runner.stop.signal is not None:
            about = ", stopping: what runs is being saved (once more ends it unsaved)"
        return f"{self.done} of {self.total} runs, {duration(time.monotonic() - self._began, digits=0)}{about}"

    def _where(self, run: Run, at: tuple[int, int] | None) -> str:
        if at is None:
            return "starting"
        epochs = self.trainer.get("max_epochs") or 0
        return f"epoch {at[0] + 1}{f'/{epochs}' if epochs > 0 else ''}, step {at[1]}"
