"""How these callbacks write figures: equal on all ranks, on all ranks, NaN left out."""

import math
from collections.abc import Mapping

import lightning as L
from torch import Tensor


def plain(figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Finite figures as floats: what has nothing to average (an empty band, say) is left out."""
    values = {key: float(value) for key, value in figures.items()}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def log_at_validation_end(module: L.LightningModule, figures: Mapping[str, float], bar: str | None = None) -> None:
    """Through the module's own log, so that checkpoints and early stopping can follow any figure; `bar`: its key."""
    # The first rank's: a figure that is NaN on one rank alone is left out there, and the others would wait for it.
    for key, value in module.trainer.strategy.broadcast(dict(figures)).items():
        # The ranks agree now; sync_dist is for Lightning, which warns without it.
        module.log(key, value, prog_bar=key == bar, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)


def log_now(trainer: L.Trainer, figures: Mapping[str, float]) -> None:
    """Straight to the loggers, where Lightning allows no log, or would drop what falls between its own log steps.

    The step is Lightning's own count: that of the batch that was last learned from, from 0; 0 before the first.
    """
    if figures:
        for logger in trainer.loggers:
            logger.log_metrics(dict(figures), step=max(trainer.global_step - 1, 0))


def announce(trainer: L.Trainer, line: str) -> None:
    """One line for the user, once."""
    if trainer.is_global_zero:
        print(line, flush=True)
