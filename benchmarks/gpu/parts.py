"""The parts, in their order, and how one is measured: what fails or takes too long leaves a line."""

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks.gpu.cuda import memory, waiting
from benchmarks.gpu.kernels import launches
from benchmarks.gpu.pairs import evaluating
from benchmarks.gpu.setting import NeedsGpuError, Setting
from benchmarks.gpu.speed import compiling, optimizers, steps
from benchmarks.harness import Row


@dataclass
class Part:
    """A measurement: for each shape one, and the seconds that one may take."""

    measure: Callable[[Setting], Iterable[Row]]
    shapes: Sequence[str]
    limit: int
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.measure.__name__


PARTS = (
    Part(steps, ("mini", "T5-small", "T5-base"), 45),
    Part(launches, ("mini", "T5-small"), 30),
    Part(waiting, ("T5-small",), 20),
    Part(optimizers, ("mini",), 20),
    Part(compiling, ("mini", "T5-small"), 110),
    Part(evaluating, ("",), 40),
    Part(memory, ("T5-small", "T5-base"), 20),
    Part(steps, ("T5-large",), 60),
    Part(compiling, ("T5-base",), 110),
)


def names_of_parts() -> list[str]:
    return list(dict.fromkeys(part.name for part in PARTS))


def measured(part: Part, now: Setting, left: float) -> list[Row]:
    """Its rows; where they end early, a last one that says why."""
    rows, why = [], ""
    if left < 10:
        why = "left out, the time was over"
    else:
        try:
            with limit(min(part.limit, int(left))):
                for row in part.measure(now):
                    rows.append(row)
        except NeedsGpuError:
            why = "needs a GPU"
        except Exception as error:
            why = f"failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return [*rows, {"what": f"{now.shape}, {part.name}: {why}".removeprefix(", ")}] if why else rows


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Limits the seconds of what is inside, by a TimeoutError."""

    def over(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
