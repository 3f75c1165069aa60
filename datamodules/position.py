"""Where a run is in its data, so that a resumed one goes on with the very next batch.

An epoch's items (batches, or what makes them) are a pure function of the epoch, dealt to the processes in turn. The
position is counted in items that were trained on. Lightning counts them too, and its *total* is what is read here: its
epoch number is one too high once a run has ended in mid-epoch (a limit of steps, a stop), and its count within the
epoch is the last epoch's until the next one begins, so a position made of these two skips or repeats data at
boundaries.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import lightning.pytorch as pl
from torch.utils.data import DataLoader, Sampler


class Position:
    """(epoch, items of it that were trained on), per process: what a checkpoint said, plus what was trained since.

    Beside it stands the plan: what the deal depends on, by the keys that a user knows. A run goes on in mid-epoch only
    under the same plan.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Back to the beginning."""
        self._epoch, self._batches, self._processed = 0, 0, 0
        self._plan: dict[str, Any] = {}

    def now(self, trainer: pl.Trainer, per_epoch: int) -> tuple[int, int]:
        """The epoch and how many of its items were trained on.

        Args:
            per_epoch: items of an epoch and process.
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

    def check(self, plan: dict[str, Any]) -> None:
        """Raises:
        ValueError: the run stopped in mid-epoch, and the rest of that epoch would be dealt otherwise now.
        """
        # A checkpoint of an earlier version knows fewer keys.
        changed = [key for key in plan if key in self._plan and plan[key] != self._plan[key]]
        if self._batches and changed:
            was = ", ".join(f"{key} {self._plan[key]} (now {plan[key]})" for key in changed)
            raise ValueError(f"the run stopped in mid-epoch with {was}; resume it with the same")


def _trained_on(trainer: pl.Trainer) -> int:
    """Batches of this process that a trainer has finished, over all epochs and all fits that it resumed."""
    return int(cast(Any, trainer.fit_loop.epoch_loop.batch_progress.total).processed)


class EpochSampler(Sampler[Any]):
    """Deals the items of one epoch after another to the processes, beginning wherever the run is.

    Every process gets the same number: a last incomplete round is dropped, at most ``world - 1`` items of an epoch,
    which the next epoch's draw holds again.

    Args:
        deal: an epoch's number → its items, the same on every process.
        total: how many items that are.
        position: (epoch, items of it that are done), asked each time an epoch begins.
    """

    def __init__(
        self,
        deal: Callable[[int], Sequence[Any]],
        total: int,
        rank: int,
        world: int,
        position: Callable[[], tuple[int, int]],
    ) -> None:
        self._deal, self._total, self._rank, self._world, self._position = deal, total, rank, world, position

    def __len__(self) -> int:
        """Items of a whole epoch: Lightning's own counter goes on from where it was."""
        return self._total // self._world

    def __iter__(self) -> Iterator[Any]:
        epoch, done = self._position()
        yield from self._deal(epoch)[self._rank :: self._world][done : len(self)]


class ResumableLoader(DataLoader[Any]):
    """Tells Lightning, by having these two methods, that a run can go on in mid-epoch; the DataModule knows where."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
