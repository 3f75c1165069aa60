"""Checkpoint callback `RunCheckpoint`, and the plugin that reads and writes its files, `AtomicCheckpointIO`."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from callbacks.saving.files import (
    FOLDER,
    STEP_IN_NAME,
    SUFFIX,
    CheckpointError,
    digest_path,
    load_verified,
    newest_checkpoint,
    save_atomically,
    step_of,
    warn,
)
from callbacks.stopping import loops
from callbacks.stopping.signals import peer_lost
from modulant.settings import NonNegativeInt, PositiveInt, checked
from modulant.storage import StorageError

__all__ = ["AtomicCheckpointIO", "CheckpointError", "RunCheckpoint", "newest_checkpoint", "not_finite"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint plugin over `save_atomically` and `load_verified`, for local folders."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        if storage_options is not None:
            raise CheckpointError(f"{path}: storage_options are not supported, got {storage_options!r}")
        save_atomically(checkpoint, _local(path))

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = True
    ) -> dict[str, Any]:
        # whatever Lightning asks for, code in a checkpoint is never run
        return load_verified(_local(path), map_location)

    def remove_checkpoint(self, path: str | Path) -> None:
        local = _local(path)
        # in this order a kill leaves a digest without a checkpoint, which nothing looks at
        local.unlink(missing_ok=True)
        digest_path(local).unlink(missing_ok=True)


def _local(path: str | Path) -> Path:
    if "://" in str(path):
        raise CheckpointError(f"{path}: checkpoints are written to local folders only")
    return Path(path)


class DivergenceError(CheckpointError):
    """The loss or gradient of a step is not finite."""


class RunCheckpoint(ModelCheckpoint):
    """Saves `step_<step>.ckpt` as the run goes on, keeps the newest few, and always saves where training ends.

    It saves between steps or at an epoch's end, never in a step (`callbacks.stopping.loops`).

    Args:
        every_n_train_steps: optimizer steps between checkpoints; 0: at the end of epochs.
        every_n_epochs: epochs between checkpoints, where every_n_train_steps is 0.
        save_top_k: how many of the newest to keep; -1: all.
        save_on_exception: save when training ends by an error, a signal or Ctrl-C too.
        dirpath: folder of the checkpoints; null: checkpoints/ in the run folder, and nothing else in a configuration.
    """

    @checked
    def __init__(
        self,
        every_n_train_steps: NonNegativeInt = 0,
        every_n_epochs: PositiveInt = 1,
        save_top_k: Literal[-1] | PositiveInt = 2,
        save_on_exception: bool = True,
        dirpath: str | None = None,
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

    @property
    def state_key(self) -> str:
        # Lightning's key holds the intervals: with them, a resumed run with another interval would lose its state
        return "RunCheckpoint"

    def state_dict(self) -> dict[str, Any]:
        # what was kept is read from the folder again: a run folder may have been moved or cleaned in between
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.dirpath is None:
            self.dirpath = str(Path(trainer.default_root_dir).absolute() / FOLDER)
        with warnings.catch_warnings():
            # a resumed run's folder is not empty, and should not be
            warnings.filterwarnings("ignore", message=r"Checkpoint directory .* exists and is not empty")
            super().setup(trainer, pl_module, stage)
        if trainer.state.fn == TrainerFn.FITTING:
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
        self._count_as_saved(kept if self.save_top_k == -1 else kept[-self.save_top_k :])
        if any(step == trainer.global_step for step, _ in kept):
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
        """Whether `every_n_train_steps` were completed since the last checkpoint, here or a moment ago."""
        n, last = self._every_n_train_steps, self._last_global_step_saved
        return n > 0 and trainer.global_step // n > last // n and not self._should_skip_saving_checkpoint(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing: what comes after a validation is a moment between steps, or an epoch's end."""

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
            return
        # the other ranks may be anywhere by now, so nothing here may wait for them: no barrier, no synced metric
        if trainer.is_global_zero:
            loops.align_counters(trainer)
            checkpoint = trainer._checkpoint_connector.dump_checkpoint(self.save_weights_only)
            path = self._folder / f"step_{trainer.global_step:08d}{SUFFIX}"
            try:
                trainer.strategy.checkpoint_io.save_checkpoint(checkpoint, str(path))
            except StorageError:
                if isinstance(exception, StorageError):
                    return  # the disk that ended the run will not take this either, and has said so
                raise
            self._last_global_step_saved = trainer.global_step
            for step_path in self._surplus(path):
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

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        # Lightning keeps the one resumed from for ever; here it ages like the others
        return previous != current

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

    def _surplus(self, saved: Path) -> list[Path]:
        """Checkpoints too many after one more was saved on an exception."""
        if self.save_top_k == -1:
            return []
        mine = {path for path in map(Path, self.best_k_models)} | {saved}
        return sorted(mine, key=step_of)[: -self.save_top_k]


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
