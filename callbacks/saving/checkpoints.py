"""`RunCheckpoint`: when a run is saved, which checkpoints are kept, and which of them is its result."""

import math
import os
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.saving.files import (
    FOLDER,
    STEP_IN_NAME,
    SUFFIX,
    CheckpointError,
    digest_path,
    step_of,
    warn,
)
from callbacks.stopping import loops
from callbacks.stopping.monitors import require_logged, require_measure
from callbacks.stopping.signals import peer_lost
from modulant.reports.choosing import check_choice
from modulant.settings import NonNegativeInt, PositiveInt, checked
from modulant.storage import StorageError

LAST = "the last step"


class DivergenceError(CheckpointError):
    """The loss or gradient of a step is not finite."""


class RunCheckpoint(ModelCheckpoint):
    """Saves `step_<step>.ckpt` as the run goes on, keeps the newest few, and always saves where training ends.

    It saves between steps or at an epoch's end, never in a step (`callbacks.stopping.loops`). With `monitor` it also
    saves after each validation that is among the best, keeps these, and the run's artefact is made of the best. Where
    `PentachoronHealth` may stop a run, the last checkpoint before an unhealthy check is kept.

    Args:
        every_n_train_steps: optimizer steps between checkpoints; 0: at the end of epochs.
        every_n_epochs: epochs between checkpoints, where every_n_train_steps is 0.
        save_top_k: how many of the newest to keep, and with monitor as many of the best; -1: all.
        save_on_exception: save when training ends by an error, a signal or Ctrl-C too.
        dirpath: folder of the checkpoints; null: checkpoints/ in the run folder, and nothing else in a configuration.
        monitor: a logged key, such as val/loss, that tells the best; null: the last is the result. With a test part
            there are relational/validation/... figures; relational/held_out/... is what is reported, and refused.
        mode: whether the best has the lowest value, min, or the highest, max.
    """

    @checked
    def __init__(
        self,
        every_n_train_steps: NonNegativeInt = 0,
        every_n_epochs: PositiveInt = 1,
        save_top_k: Literal[-1] | PositiveInt = 2,
        save_on_exception: bool = True,
        dirpath: str | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step_{step:08d}",
            monitor="step",
            mode="max",
            save_last=False,
            save_top_k=save_top_k,
            save_on_exception=save_on_exception,
            auto_insert_metric_name=False,
            every_n_train_steps=every_n_train_steps or None,
            every_n_epochs=None if every_n_train_steps else every_n_epochs,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        # Lightning's own monitor is the step: what it keeps are the newest.
        self.watched, self.best_is = monitor, mode
        self._scores: dict[int, float] = {}  # of checkpoints, by step
        self._mine: set[Path] = set()
        self._measured: tuple[int, float] | None = None

    @property
    def state_key(self) -> str:
        # Lightning's key holds the intervals: with them, a resumed run with another interval would lose its state
        return "RunCheckpoint"

    def state_dict(self) -> dict[str, Any]:
        # what was kept is read from the folder again: a run folder may have been moved or cleaned in between
        return {"monitor": self.watched, "scores": dict(self._scores)} if self.watched else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict.get("monitor") == self.watched:
            self._scores = dict(state_dict.get("scores", {}))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir).absolute() / FOLDER)
        with warnings.catch_warnings():
            # a resumed run's folder is not empty, and should not be
            warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)
        if trainer.state.fn == TrainerFn.FITTING:
            check_choice(self.watched or "", "checkpoint.monitor")
            loops.install(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        held = self._on_disk()
        if held and trainer.ckpt_path is None and not self.best_k_models and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise CheckpointError(
                f"{self._folder} already holds checkpoints ({held[-1][1].name}): resume that run, or use another folder"
            )
        if trainer.is_global_zero:  # now, and not when it saves: a run folder that has vanished stays away
            self._folder.parent.mkdir(parents=True, exist_ok=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.watched is not None:
            require_measure(trainer, "checkpoint.monitor", self.watched)
        if trainer.ckpt_path is None:
            return
        held = self._on_disk()
        if trainer.is_global_zero:
            for temporary in self._folder.glob(f".*{SUFFIX}*.tmp"):
                temporary.unlink()
            for step, path in held:
                if step > trainer.global_step:  # ahead of what was resumed from: damaged, or given up
                    os.replace(path, path.with_name(f"{path.name}.superseded"))
                    digest_path(path).unlink(missing_ok=True)
        kept = [(step, path) for step, path in held if step <= trainer.global_step]
        newest = kept if self.save_top_k == -1 else kept[-self.save_top_k :]
        # Before a validation, it lacks that one's figures: it does not count as saved, and is written again.
        repeated = loops.evaluation_comes_next(trainer)
        self._count_as_saved([at for at in newest if not (repeated and at[0] == trainer.global_step)])
        self._scores = {step: score for step, score in self._scores.items() if step in dict(kept)}
        healthy = max((step for step, _ in kept if step <= (_last_healthy_step(trainer) or -1)), default=-1)
        self._mine = {path for step, path in kept if step in {healthy, *self._scores, *dict(newest)}}
        if any(step == trainer.global_step for step, _ in kept) and not repeated:
            self._last_global_step_saved = trainer.global_step

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the batch's figures are not written yet."""

    def on_between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_due(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._is_due(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
        else:
            super().on_train_epoch_end(trainer, pl_module)

    def _is_due(self, trainer: Trainer) -> bool:
        """Whether `every_n_train_steps` were completed since the last checkpoint, or one of the best is to be saved."""
        n, last = self._every_n_train_steps, self._last_global_step_saved
        due = n > 0 and trainer.global_step // n > last // n
        return (due or self._is_among_the_best(trainer)) and not self._should_skip_saving_checkpoint(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes what is monitored; a moment between steps, or an epoch's end, comes next, and saves."""
        if self.watched is None or trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        require_logged(trainer, "checkpoint.monitor", self.watched)
        # The ranks agree, whatever each of them has measured.
        found = trainer.strategy.broadcast(float(trainer.callback_metrics[self.watched]))
        self._measured = (trainer.global_step, found) if math.isfinite(found) else None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.state.fn != TrainerFn.FITTING or not self._should_save_on_exception(trainer):
            return
        if isinstance(exception, DivergenceError):
            return  # its step was not taken, but the weights before it are on their way to nowhere
        if culprit := not_finite(pl_module):
            if not isinstance(exception, CheckpointError):  # which says so itself
                warn(f"no checkpoint of step {trainer.global_step}: {culprit} is not finite")
                self._last_global_step_saved = trainer.global_step  # `RunReport` calls this too: said once
            return
        # the other ranks may be anywhere by now, so nothing here may wait for them: no barrier, no synced metric
        if trainer.is_global_zero:
            loops.align_counters(trainer)
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(self.save_weights_only)
            path = self._current_path(trainer.global_step)
            try:
                trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, str(path))
            except StorageError:
                if isinstance(exception, StorageError):
                    return  # the disk that ended the run will not take this either, and has said so
                raise
            self._last_global_step_saved = trainer.global_step
            for step_path in self._surplus(trainer, path):
                trainer.strategy.checkpoint_io.remove_checkpoint(step_path)
            # of these the command line says how to go on
            if not (isinstance(exception, KeyboardInterrupt | SystemExit | StorageError) or peer_lost(exception)):
                warn(f"saved {path} on {type(exception).__name__}")

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        if culprit := not_finite(trainer.lightning_module):
            raise CheckpointError(
                f"step {trainer.global_step}: {culprit} is not finite, so no checkpoint is written; "
                "the last one holds the run before that: resume with a smaller learning rate"
            )
        super()._save_checkpoint(trainer, filepath)

    def _save_topk_checkpoint(self, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        step = trainer.global_step
        if self._measured is not None and self._measured[0] == step:
            self._scores[step] = self._measured[1]
        super()._save_topk_checkpoint(trainer, monitor_candidates)
        for path in self._surplus(trainer, self._current_path(step)):
            self._remove_checkpoint(trainer, str(path))

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        return False  # the newest are not all that is kept, and the one resumed from ages like the others: see _surplus

    def result(self, trainer: Trainer) -> "RunResult":
        """Which state of a fit is its result: the best that was monitored, the last healthy one, or the last."""
        drifted = _drifted(trainer)
        held = {step: path for step, path in self._on_disk() if step <= trainer.global_step}
        if drifted is not None:
            held = {step: path for step, path in held.items() if step <= drifted}
        scores = {step: score for step, score in self._scores.items() if step in held}
        if scores:
            step = self._best(scores)[0]
            extreme = "lowest" if self.best_is == "min" else "highest"
            reason = f"{self.watched} is the {extreme} there, {scores[step]:.4f}"
        elif drifted is not None and held:
            step, reason = max(held), "the last checkpoint that was healthy"
        else:
            none_healthy = ", as no checkpoint was healthy" if drifted is not None else ""
            return RunResult(trainer.global_step, None, f"{LAST}{none_healthy}")
        return RunResult(step, None if step == trainer.global_step else held[step], reason)

    def _is_among_the_best(self, trainer: Trainer) -> bool:
        if self._measured is None or self._measured[0] != trainer.global_step:
            return False
        scores = self._scores | {self._measured[0]: self._measured[1]}
        return self.save_top_k == -1 or trainer.global_step in self._best(scores)[: self.save_top_k]

    def _best(self, scores: dict[int, float]) -> list[int]:
        """Steps, the best first; of equal ones the earliest."""
        sign = 1 if self.best_is == "min" else -1
        return sorted(scores, key=lambda step: (sign * scores[step], step))

    @property
    def newest(self) -> Path | None:
        """Newest checkpoint of this run, if there is one."""
        return max(self._mine, key=step_of, default=None)

    def _current_path(self, step: int) -> Path:
        return self._folder / f"step_{step:08d}{SUFFIX}"

    @property
    def _folder(self) -> Path:
        assert self.dirpath is not None
        return Path(self.dirpath)

    def _on_disk(self) -> list[tuple[int, Path]]:
        paths = self._folder.glob(f"step_*{SUFFIX}") if self._folder.is_dir() else ()
        return sorted((int(match[1]), path) for path in paths if (match := STEP_IN_NAME.search(path.name)))

    def _count_as_saved(self, kept: list[tuple[int, Path]]) -> None:
        self.best_k_models = {str(path): torch.tensor(step) for step, path in kept}
        if not kept:
            return
        self.best_model_path, self.best_model_score = str(kept[-1][1]), torch.tensor(kept[-1][0])
        self.kth_best_model_path, self.kth_value = str(kept[0][1]), torch.tensor(kept[0][0])

    def _surplus(self, trainer: Trainer, saved: Path) -> list[Path]:
        """Count `saved` as kept, point `best_model_path` at the best, and return the checkpoints that are too many."""
        self._mine.add(saved)
        steps = {step_of(path): path for path in self._mine}
        scores = {step: score for step, score in self._scores.items() if step in steps}
        if scores:
            best = self._best(scores)[0]
            self.best_model_path, self.best_model_score = str(steps[best]), torch.tensor(scores[best])
        if self.save_top_k == -1:
            return []
        keep = {*sorted(steps)[-self.save_top_k :], *self._best(scores)[: self.save_top_k]}
        healthy = _last_healthy_step(trainer)
        if healthy is not None:
            keep.add(max((step for step in steps if step <= healthy), default=-1))
        gone = [path for step, path in sorted(steps.items()) if step not in keep]
        self._mine.difference_update(gone)
        self._scores = {step: score for step, score in self._scores.items() if step in keep}
        return gone


class RunResult(NamedTuple):
    """The state that a run's artefact is made of."""

    step: int
    checkpoint: Path | None  # None: the weights as they are
    reason: str


def result_of(trainer: Trainer) -> RunResult:
    """By the run's `RunCheckpoint`; without one the last step."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, RunCheckpoint):
            return callback.result(trainer)
    return RunResult(trainer.global_step, None, LAST)


def monitor_of(trainer: Trainer) -> str | None:
    """The key that a run's best checkpoint is told by."""
    return next((callback.watched for callback in trainer.callbacks if isinstance(callback, RunCheckpoint)), None)  # type: ignore[attr-defined]


def _last_healthy_step(trainer: Trainer) -> int | None:
    found = (getattr(callback, "last_healthy_step", None) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return next((step for step in found if step is not None), None)


def _drifted(trainer: Trainer) -> int | None:
    """Of a run that was stopped because it drifted: the last healthy step, −1 without one; of others None."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if hasattr(callback, "last_healthy_step") and getattr(callback, "stop_reason", None):
            return -1 if callback.last_healthy_step is None else int(callback.last_healthy_step)
    return None


def not_finite(module: LightningModule) -> str | None:
    """Name of the first trainable parameter that holds a NaN or an infinity, if there is one."""
    trainable: list[tuple[str, Tensor]] = [
        (name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad
    ]
    if not trainable:
        return None
    # one transfer to the host for all parameters
    finite = torch.stack([torch.isfinite(parameter.detach()).all() for _, parameter in trainable])
    if bool(finite.all()):
        return None
    return next(name for (name, _), good in zip(trainable, finite.tolist(), strict=True) if not good)
