"""Lightning's training loops with one moment more, between two steps: where runs are saved, and where they stop.

Lightning saves at a batch's end, before that batch's figures are written, and finds out from its counters where a
checkpoint was taken. Counters that an error has left in the middle of a batch, and checkpoints taken before a
validation, are not among the cases it knows: figures are lost, a validation is skipped, an epoch is counted twice. Here
every checkpoint is taken in one of three states, and `settle` brings the counters of a run that ends anywhere into the
last one it has passed:

- *between steps*: some batches of the epoch are done, their figures are written;
- *before a validation*: the same, and a validation comes next;
- *at an epoch's end*: in `on_train_epoch_end`, where Lightning itself saves.
"""

from typing import Any, Protocol, runtime_checkable

import lightning.pytorch as pl
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop

_COUNTS = ("ready", "started", "processed", "completed")


@runtime_checkable
class ActsBetweenSteps(Protocol):
    """A callback with a hook more than Lightning's."""

    def on_between_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After an optimizer step, its figures and a validation that followed it; not at an epoch's end."""
        ...


class RunEpochLoop(_TrainingEpochLoop):
    """Calls `on_between_steps`."""

    def on_advance_end(self, data_fetcher: Any) -> None:
        super().on_advance_end(data_fetcher)
        self._batches_that_stepped = self.global_step  # which is what it counts, whatever an interruption has left
        # A validation that was interrupted once looks for ever as if it still were.
        evaluated: Any = self.val_loop.batch_progress.total
        _set(evaluated, evaluated.processed)
        if self._should_accumulate() or self._is_training_done:
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ActsBetweenSteps):
                callback.on_between_steps(self.trainer, self.trainer.lightning_module)

    def _broadcast_sigterm_tensor(self) -> None:
        """Nothing: Lightning would tell all ranks of rank 0's signals here, one wait for the device each step."""


class RunFitLoop(_FitLoop):
    """A run that is resumed when all is learned still comes to `on_train_end`, whose figures it may lack."""

    @property
    def skip(self) -> bool:
        return self.max_batches == 0 or self.trainer.limit_train_batches == 0


def prepare(trainer: pl.Trainer) -> None:
    """Give a trainer these loops; before it restores a checkpoint, in a callback's `setup`."""
    # Lightning has linked the loops with the data and with each other, and has no way to be given others.
    trainer.fit_loop.__class__ = RunFitLoop
    trainer.fit_loop.epoch_loop.__class__ = RunEpochLoop


def settle(trainer: pl.Trainer) -> None:
    """Bring the counters of a run that has ended anywhere into a state from which it goes on exactly.

    Batches of gradients that were accumulated and led to no step yet count as not done.
    """
    loop = trainer.fit_loop.epoch_loop
    # Lightning types its trackers by their common base, which lacks half of the counts.
    epochs: Any = trainer.fit_loop.epoch_progress
    batches: Any = loop.batch_progress
    validation: Any = loop.val_loop.batch_progress
    per_epoch = trainer.num_training_batches
    ended = batches.current.processed >= per_epoch
    undone = 0 if ended else batches.current.processed % trainer.accumulate_grad_batches
    batches.is_last_batch = ended
    _set(batches.total, batches.total.processed - undone)
    _set(batches.current, batches.current.processed - undone)
    loop._batches_that_stepped = loop.global_step
    if trainer.validating and not undone:  # otherwise its last batch is done again, and the validation with it
        # one batch begun and none done is how Lightning knows that a validation has to be gone back to
        _set(validation.total, 0)
        validation.total.ready = validation.total.started = 1
        _set(validation.current, 0)
        validation.is_last_batch = False
        loop._batches_that_stepped -= 1  # the step that its figures belong to
    elif ended and epochs.total.started == epochs.total.processed:
        # between two epochs: as in the first one's last hook
        for count in (epochs.total, epochs.current):
            count.ready = count.started = count.processed
            count.completed = count.processed - 1


def _set(tracker: Any, n: int) -> None:
    for name in _COUNTS:
        setattr(tracker, name, n)
