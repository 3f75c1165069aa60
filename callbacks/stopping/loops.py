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
from lightning.pytorch.loops.utilities import _is_max_limit_reached

_COUNTS = ("ready", "started", "processed", "completed")


@runtime_checkable
class ActsBetweenSteps(Protocol):
    """Callback with the additional hook `on_between_steps`."""

    def on_between_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called after an optimizer step, its logging and a validation that followed; not at an epoch's end."""
        ...


class RunEpochLoop(_TrainingEpochLoop):
    """Training epoch loop that calls `on_between_steps`, and always evaluates where training ends.

    Lightning evaluates by `check_val_every_n_epoch` and `val_check_interval` alone: the last figures could be of an
    earlier step than the weights.
    """

    def _should_check_val_epoch(self) -> bool:  # by which a bar knows how long it is
        return super()._should_check_val_epoch() or self._must_check_val()

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        return super()._should_check_val_fx(data_fetcher) or self._must_check_val()

    def _must_check_val(self) -> bool:
        """Whether an interrupted validation is to be repeated, or no batch follows.

        Training ends by max_steps or max_epochs, or because a callback, max_time's too, has asked to stop.
        """
        if not self.trainer.enable_validation or evaluation_comes_next(self.trainer):
            return self.trainer.enable_validation
        fit_loop, epoch_ends = self.trainer.fit_loop, self._num_ready_batches_reached()
        epochs = self.trainer.current_epoch + epoch_ends
        may_stop = epochs >= (fit_loop.min_epochs or 0) and self.global_step >= (self.min_steps or 0)
        return (
            _is_max_limit_reached(self.global_step, self.max_steps)
            or (epoch_ends and _is_max_limit_reached(epochs, fit_loop.max_epochs or -1))
            or (self.trainer.should_stop and may_stop)
        )

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
    """Fit loop that calls `on_train_end` also when a finished run is resumed, to log missing final metrics.

    A run that was interrupted in its last evaluation repeats that evaluation first, also after max_steps.
    """

    @property
    def done(self) -> bool:
        return not evaluation_comes_next(self.trainer) and super().done

    @property
    def skip(self) -> bool:
        return self.max_batches == 0 or self.trainer.limit_train_batches == 0


def install(trainer: pl.Trainer) -> None:
    """Replace a trainer's loops with these; call in a callback's `setup`, before a checkpoint is restored."""
    # Lightning has no API to replace loops, and has linked them with the data and each other already.
    trainer.fit_loop.__class__ = RunFitLoop
    trainer.fit_loop.epoch_loop.__class__ = RunEpochLoop


def evaluation_comes_next(trainer: pl.Trainer) -> bool:
    """Whether a run was just resumed from the state before a validation."""
    loop = trainer.fit_loop
    return trainer.enable_validation and loop.restarting and loop.epoch_loop.val_loop.restarted_mid_evaluation


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
