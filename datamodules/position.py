"""Track a run's position in its data, so that it resumes with exactly the next batch.

The batches of an epoch are a pure function of the epoch. All ranks share each batch: the position is the same on all,
and a run may resume with another number of ranks if the global batch size is the same. The position counts trained
batches. It is derived from Lightning's *total* count: Lightning's epoch number is one too high after a run has ended in
mid-epoch (a limit of steps, a stop), and its count within the epoch is that of the last epoch until the next one
starts, so a position from these two would skip or repeat data at boundaries.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Sampler

BATCH_SIZE = "data.batch_size"  # in a plan: over all ranks


class Position:
    """Position (epoch, trained batches of it): that of a checkpoint plus what was trained since.

    It includes the plan: the settings that determine the batches, by configuration key. A run resumes in mid-epoch only
    with the same plan.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Return to the start."""
        self._epoch, self._batches, self._processed = 0, 0, 0
        self._plan: dict[str, Any] = {}
        self._old_world_size = 1

    def current(self, trainer: pl.Trainer, per_epoch: int) -> tuple[int, int]:
        """Return the epoch and its number of trained batches.

        Args:
            per_epoch: batches of an epoch.
        """
        # Lightning requests the first batch before it restores its counters; until then its total is 0.
        total = max(_trained_on(trainer), self._processed)
        per_epoch = int(min(per_epoch, trainer.num_training_batches))  # limit_train_batches
        epochs, batches = divmod(self._batches + total - self._processed, per_epoch)
        return self._epoch + epochs, batches

    def state_dict(self, trainer: pl.Trainer, per_epoch: int, plan: dict[str, Any]) -> dict[str, Any]:
        """State as primitives: ``batches`` of ``epoch`` are done."""
        epoch, batches = self.current(trainer, per_epoch)
        return {"epoch": epoch, "batches": batches, "processed": _trained_on(trainer), "plan": plan}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the position and plan of a checkpoint."""
        self._epoch, self._batches = int(state["epoch"]), int(state["batches"])
        self._processed, self._plan = int(state["processed"]), dict(state["plan"])
        # An earlier version gave each process separate batches; with one process they are the same as now.
        self._old_world_size = int(self._plan.pop("processes", 1))

    def check(self, plan: dict[str, Any]) -> None:
        """Check that the rest of the current epoch has the same batches under this plan.

        Raises:
            ValueError: the run stopped in mid-epoch with another plan.
        """
        if self._batches and self._old_world_size > 1:
            raise ValueError(
                f"the run stopped in mid-epoch under an earlier version, which split batches of data.batch_size over "
                f"{self._old_world_size} processes differently; resume it from a checkpoint at an epoch's end"
            )
        # A checkpoint of an earlier version has fewer keys.
        changed = [key for key in plan if key in self._plan and plan[key] != self._plan[key]]
        if self._batches and changed:
            was = ", ".join(f"{key} {self._plan[key]} (now {plan[key]})" for key in changed)
            together = ", counted over all processes" if BATCH_SIZE in changed else ""
            raise ValueError(f"the run stopped in mid-epoch with {was}; resume it with the same{together}")


def _trained_on(trainer: pl.Trainer) -> int:
    """Batches that a trainer has finished, over all epochs and resumed fits."""
    return int(cast(Any, trainer.fit_loop.epoch_loop.batch_progress.total).processed)


class Accumulated(NamedTuple):
    """A batch of an epoch, one of those whose gradients are accumulated for a step.

    Attributes:
        batch: what the loader makes a batch from.
        factor: of its mean loss. Lightning divides each by ``accumulate_grad_batches``, whatever the number of tokens,
            in an epoch's last, shorter step too; with these factors a step is that of one batch of all its examples.
    """

    batch: Any
    factor: float


def accumulated(batches: Sequence[Any], tokens: Callable[[Any], int], n: int, limit: int) -> list[Accumulated]:
    """The batches of an epoch with their factors, where ``n`` make a step and an epoch ends after ``limit`` of them.

    Args:
        tokens: number of target tokens of a batch.

    >>> accumulated("abc", {"a": 1, "b": 3, "c": 2}.get, n=2, limit=3)[1:]
    [Accumulated(batch='b', factor=1.5), Accumulated(batch='c', factor=2.0)]
    """
    found = []
    for start in [*range(0, limit, n), *range(limit, len(batches), n)]:
        step = batches[start : min(start + n, limit if start < limit else len(batches))]
        counts = [tokens(batch) for batch in step]
        found += [Accumulated(batch, n * own / sum(counts)) for batch, own in zip(step, counts, strict=True)]
    return found


class EpochSampler(Sampler[Any]):
    """Sampler of the batches of each epoch from the run's position on; the same on every rank.

    Args:
        epoch_batches: epoch number → its batches.
        total: number of batches of an epoch.
        position: returns (epoch, finished batches of it); called at the start of each epoch.
    """

    def __init__(
        self, epoch_batches: Callable[[int], Sequence[Any]], total: int, position: Callable[[], tuple[int, int]]
    ) -> None:
        self._epoch_batches, self._total, self._position = epoch_batches, total, position

    def __len__(self) -> int:
        """Number of batches of a whole epoch; Lightning's counter starts at the position."""
        return self._total

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self._position()
        yield from self._epoch_batches(epoch)[done:]


class ResumableLoader(DataLoader[Any]):
    """DataLoader with the two methods by which Lightning recognises that a run can resume in mid-epoch.

    The position itself is in the DataModule's state.
    """

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
