"""Lightning's training loops with an additional hook between two steps, where runs are saved and stopped.

Lightning saves at the end of a batch, before that batch's metrics are logged, and infers from its counters where a
checkpoint was taken. It does not handle counters that an error left in the middle of a batch, nor checkpoints taken
before a validation: metrics are lost, a validation is skipped, an epoch is counted twice. Here every checkpoint is
taken in one of three states, and `align_counters` resets the counters of an interrupted run to the last state it has
passed:

- *between steps*: some batches of the epoch are done and their metrics logged;
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
    """Callback with the additional hook `on_between_steps`."""

    def on_between_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called after an optimizer step, its logging and a validation that followed; not at an epoch's end."""
        ...


class RunEpochLoop(_TrainingEpochLoop):
    """Training epoch loop that calls `on_between_steps`."""

    def on_advance_end(self, data_fetcher: Any) -> None:
        super().on_advance_end(data_fetcher)
        self._batches_that_stepped = self.global_step  # equal by definition, but not after an interruption
        # Otherwise a validation that was interrupted once is taken for unfinished from then on.
        evaluated: Any = self.val_loop.batch_progress.total
        _set(evaluated, evaluated.processed)
        if self._should_accumulate() or self._is_training_done:
            return
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ActsBetweenSteps):
                callback.on_between_steps(self.trainer, self.trainer.lightning_module)

    def _broadcast_sigterm_tensor(self) -> None:
        """Do nothing: Lightning would broadcast rank 0's signals here, which waits for the device at every step."""


class RunFitLoop(_FitLoop):
    """Fit loop that calls `on_train_end` also when a finished run is resumed, to log missing final metrics."""

    @property
    def skip(self) -> bool:
        return self.max_batches == 0 or self.trainer.limit_train_batches == 0


def install(trainer: pl.Trainer) -> None:
    """Replace a trainer's loops with these; call in a callback's `setup`, before a checkpoint is restored."""
    # Lightning has no API to replace loops, and has linked them with the data and each other already.
    trainer.fit_loop.__class__ = RunFitLoop
    trainer.fit_loop.epoch_loop.__class__ = RunEpochLoop


def align_counters(trainer: pl.Trainer) -> None:
    """Reset the counters of a run that was interrupted anywhere to the last state from which it resumes exactly.

    Batches whose gradients were accumulated without a step yet count as not done.
    """
    loop = trainer.fit_loop.epoch_loop
    # Lightning's annotations name the trackers' base class, which lacks some of the counts.
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
    if trainer.validating and not undone:  # otherwise the last batch is repeated, and the validation with it
        # one batch started and none done makes Lightning run the validation after resuming
        _set(validation.total, 0)
        validation.total.ready = validation.total.started = 1
        _set(validation.current, 0)
        validation.is_last_batch = False
        loop._batches_that_stepped -= 1  # the step of the validation's metrics
    elif ended and epochs.total.started == epochs.total.processed:
        # between two epochs: the state of the first one's on_train_epoch_end
        for count in (epochs.total, epochs.current):
            count.ready = count.started = count.processed
            count.completed = count.processed - 1


def _set(tracker: Any, n: int) -> None:
    for name in _COUNTS:
        setattr(tracker, name, n)
