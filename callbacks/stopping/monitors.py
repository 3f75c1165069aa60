"""End a run in which a callback of Lightning's monitors a key that is never logged, as soon as that is known."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.saving.files import CheckpointError


class Monitors(pl.Callback):
    """Checks what `EarlyStopping` and `ModelCheckpoint` monitor; `RunCheckpoint` checks its own.

    A measure's key is checked before the first step, ``train/...`` after it, any other after the first validation. Must
    come before the callbacks that it checks, which raise an error with a list of all keys.
    """

    def __init__(self) -> None:
        self._stepped = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for setting, key, _ in _monitored(trainer):
            require_measure(trainer, setting, key)

    def on_between_steps(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._stepped:
            return
        self._stepped = True
        for setting, key, _ in _monitored(trainer):
            if key.startswith("train/"):
                require_logged(trainer, setting, key)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        for setting, key, _ in _monitored(trainer):
            require_logged(trainer, setting, key)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for setting, key, callback in _monitored(trainer):
            if getattr(callback, "_check_on_train_epoch_end", False):  # now, also without a validation
                require_logged(trainer, setting, key)


def _monitored(trainer: pl.Trainer) -> Iterator[tuple[str, str, Any]]:
    """Setting, key and callback, where a missing key is an error."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        match callback:
            case EarlyStopping(monitor=str(key), strict=True):
                pass
            case ModelCheckpoint(monitor=str(key)) if key not in ("epoch", "step"):  # always there, as RunCheckpoint's
                pass
            case _:
                continue
        yield f"trainer.callbacks: monitor of {type(callback).__name__}", key, callback


def require_measure(trainer: pl.Trainer, setting: str, key: str) -> None:
    """Check, before the first step, that a monitored key of our own measures is among those logged by then.

    Raises:
        CheckpointError: it is not.
    """
    if trainer.global_step > 0:
        return
    ours = key.split("/")[0] in ("alpha", "pentachoron", "relational")
    logged = _logged(trainer)
    # The first rank alone has a file of them.
    if trainer.strategy.broadcast(ours and bool(logged) and key not in logged):
        raise CheckpointError(_unknown(setting, key, logged))


def require_logged(trainer: pl.Trainer, setting: str, key: str) -> None:
    """Check that a monitored key is among the metrics that callbacks can read.

    Raises:
        CheckpointError: it is not.
    """
    if key in trainer.callback_metrics:
        return
    if key in _logged(trainer):
        raise CheckpointError(f"{setting}: {key!r} is logged, but not by validations, so it cannot be monitored")
    raise CheckpointError(_unknown(setting, key, trainer.callback_metrics))


def _logged(trainer: pl.Trainer) -> set[str]:
    return {key for logger in trainer.loggers for key in getattr(logger, "keys", ())}


def _unknown(setting: str, key: str, keys: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, sorted(keys), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"{setting}: nothing is logged as {key!r}{hint}"
