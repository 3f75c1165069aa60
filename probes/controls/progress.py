"""How far a command is: bars on a terminal, plain lines elsewhere; read from what the runs have written."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from modulant.reports.wording import duration
from probes.controls.plan import Run, State, state_of

_PLAIN_EVERY_S = 60.0
_TAIL = 1 << 16  # bytes; a row of metrics.csv has a few thousand


def position(folder: Path) -> tuple[int, int] | None:
    """The last epoch, from 0, and step that a run has logged; None before the first."""
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
    """The share of its budget that a run has done, by its epochs or, where those are unbounded, its steps."""
    epochs, steps = trainer.get("max_epochs") or 0, trainer.get("max_steps") or 0
    if at is None:
        return 0.0
    by = [at[0] / epochs] if epochs > 0 else []
    by += [at[1] / steps] if steps > 0 else []
    return min(1.0, max(by, default=0.0))


class Display:
    """Shows a command's progress.

    Args:
        left: the runs to do.
        total: how many there are with those that were done before.
        trainer: the resolved trainer section, for the budget of a run whose control decides none.
        console: where to; a terminal gets bars.
    """

    def __init__(
        self, left: Sequence[Run], total: int, trainer: Mapping[str, Any], console: Console | None = None
    ) -> None:
        self.console = console or Console(file=sys.stdout, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.done, self.total, self.trainer = total - len(left), total, trainer
        begun = [run for run in left if state_of(run) is State.BEGUN]
        self._resumed = {run.name: fraction(position(run.folder), self._budget(run)) for run in begun}
        self._fractions = dict.fromkeys((run.name for run in left), 0.0) | self._resumed
        self._behind = sum(self._fractions.values())
        self._began = self._last = time.monotonic()
        columns = TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}")
        self._bars = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self._all = self._bars.add_task("runs", total=total, completed=self.done, text="")
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.update(self._all, completed=self.done, text=f"{self.done} of {self.total} runs, {self._elapsed()}")
        self._bars.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bars."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)
        self.console.file.flush()

    def started(self, run: Run, about: str = "") -> None:
        """Show a run that has started; without bars, or with something about it, in a line."""
        self._tasks[run.name] = self._bars.add_task(f"  {run.name}", total=1.0, text="")
        if about or self._bars.disable:
            self.say(f"{run.name} {'resumes' if run.name in self._resumed else 'starts'}{about}; {run.log}")

    def ended(self, run: Run, done: bool, line: str) -> None:
        """A run has ended, with or without being done."""
        self.done += done
        self._fractions[run.name] = 1.0
        self._bars.remove_task(self._tasks.pop(run.name))
        self.say(line)
        self._last = 0.0  # say how far that leaves the whole

    def look(self, running: Sequence[Run], stopping: bool) -> None:
        """Read what the running ones have written, and show it."""
        at = {run.name: position(run.folder) for run in running}
        budgets = {run.name: self._budget(run) for run in running}
        said = {name: self._where(where, budgets[name]) for name, where in at.items()}
        self._fractions |= {name: fraction(where, budgets[name]) for name, where in at.items()}
        for name, text in said.items():
            self._bars.update(self._tasks[name], completed=self._fractions[name], text=text)
        self._bars.update(self._all, completed=self.done, text=self._summary(stopping))
        if self._bars.disable and time.monotonic() - self._last > _PLAIN_EVERY_S:
            self._last = time.monotonic()
            each = ", ".join(f"{name} ({text})" for name, text in said.items())
            self.say(f"{self._summary(stopping)}; running: {each}")

    def remaining(self, seconds: float) -> float | None:
        """Seconds until all is done, at the rate of the seconds so far; None without any progress."""
        done = sum(self._fractions.values())
        worked = done - self._behind
        return seconds * (len(self._fractions) - done) / worked if worked > 0 else None

    def _summary(self, stopping: bool) -> str:
        left = self.remaining(time.monotonic() - self._began)
        about = f", about {duration(left, digits=0)} left" if left is not None else ""
        if stopping:
            about = ", stopping: what runs is being saved (once more ends it unsaved)"
        return f"{self.done} of {self.total} runs, {self._elapsed()}{about}"

    def _elapsed(self) -> str:
        return duration(time.monotonic() - self._began, digits=0)

    def _budget(self, run: Run) -> dict[str, Any]:
        """The trainer section of a run, with the number of epochs that its control decides."""
        epochs = (run.control.decides or {}).get("trainer.max_epochs")
        return {**self.trainer, **({} if epochs is None else {"max_epochs": epochs})}

    @staticmethod
    def _where(at: tuple[int, int] | None, trainer: Mapping[str, Any]) -> str:
        if at is None:
            return "starting"
        epochs = trainer.get("max_epochs") or 0
        return f"epoch {at[0] + 1}{f'/{epochs}' if epochs > 0 else ''}, step {at[1]}"
