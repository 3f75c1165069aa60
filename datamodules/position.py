"""Where a run is in its data, so that a resumed one goes on with the very next batch.

An epoch's items (batches, or what makes them) are a pure function of the epoch. All processes share each of them: the
position is the same on all, and a run may go on under another number of processes where the batch of all of them
together is as large. It is counted in items that were trained on. Lightning counts them too, and its *total* is what is
read here: its epoch number is one too high once a run has ended in mid-epoch (a limit of steps, a stop), and its count
within the epoch is the last epoch's until the next one begins, so a position made of these two skips or repeats data at
boundaries.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Sampler

BATCH_SIZE = "data.batch_size"  # in a plan: over all processes


class Position:
    """(epoch, items of it that were trained on): what a checkpoint said, plus what was trained since.

    Beside it stands the plan: what the deal depends on, by the keys that a user knows. A run goes on in mid-epoch only
    under the same plan.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Back to the beginning."""
        self._epoch, self._batches, self._processed = 0, 0, 0
        self._plan: dict[str, Any] = {}
        self._dealt_to = 1

    def now(self, trainer: pl.Trainer, per_epoch: int) -> tuple[int, int]:
        """The epoch and how many of its items were trained on.

        Args:
            per_epoch: items of an epoch.
        """
        # Lightning asks for the first batch before it has restored its own counters; until then its total is 0.
        total = max(_trained_on(trainer), self._processed)
        per_epoch = int(min(per_epoch, trainer.num_training_batches))  # limit_train_batches
        epochs, batches = divmod(self._batches + total - self._processed, per_epoch)
        return self._epoch + epochs, batches

    def state_dict(self, trainer: pl.Trainer, per_epoch: int, plan: dict[str, Any]) -> dict[str, Any]:
        """Primitives only; ``batches`` of ``epoch`` are done."""
        epoch, batches = self.now(trainer, per_epoch)
        return {"epoch": epoch, "batches": batches, "processed": _trained_on(trainer), "plan": plan}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._epoch, self._batches = int(state["epoch"]), int(state["batches"])
        self._processed, self._plan = int(state["processed"]), dict(state["plan"])
        # An earlier version gave each process batches of its own; that of one process are the same as now.
        self._dealt_to = int(self._plan.pop("processes", 1))

    def check(self, plan: dict[str, Any]) -> None:
        """Raises:
        ValueError: the run stopped in mid-epoch, and the rest of that epoch would be dealt otherwise now.
        """
        if self._batches and self._dealt_to > 1:
            raise ValueError(
                f"the run stopped in mid-epoch under an earlier version, which dealt batches of data.batch_size to "
                f"{self._dealt_to} processes in another way; resume it from a checkpoint at an epoch's end"
            )
        # A checkpoint of an earlier version knows fewer keys.
        changed = [key for key in plan if key in self._plan and plan[key] != self._plan[key]]
        if self._batches and changed:
            was = ", ".join(f"{key} {self._plan[key]} (now {plan[key]})" for key in changed)
            together = ", counted over all processes" if BATCH_SIZE in changed else ""
            raise ValueError(f"the run stopped in mid-epoch with {was}; resume it with the same{together}")


def _trained_on(trainer: pl.Trainer) -> int:
    """Batches that a trainer has finished, over all epochs and all fits that it resumed."""
    return int(cast(Any, trainer.fit_loop.epoch_loop.batch_progress.total).processed)


class EpochSampler(Sampler[Any]):
    """The items of one epoch after another, beginning wherever the run is; the same on every process.

    Args:
        deal: an epoch's number → its items.
        total: how many items that are.
        position: (epoch, items of it that are done), asked each time an epoch begins.
    """

    def __init__(
        self, deal: Callable[[int], Sequence[Any]], total: int, position: Callable[[], tuple[int, int]]
    ) -> None:
        self._deal, self._total, self._position = deal, total, position

    def __len__(self) -> int:
        """Items of a whole epoch: Lightning's own counter goes on from where it was."""
        return self._total

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self._position()
        yield from self._deal(epoch)[done:]


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning, by having these two methods, that a run can go on in mid-epoch; the DataModule knows where."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
