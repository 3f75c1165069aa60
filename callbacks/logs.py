"""Log metrics from callbacks: the same values on all ranks, NaN omitted."""

import math
from collections.abc import Mapping

import lightning as L
from torch import Tensor


def finite_floats(figures: Mapping[str, Tensor]) -> dict[str, float]:
    """Finite values as floats; a mean of nothing (an empty band, for example) is NaN and omitted."""
    values = {key: float(value) for key, value in figures.items()}
    return {key: value for key, value in values.items() if math.isfinite(value)}


def log_at_validation_end(module: L.LightningModule, figures: Mapping[str, float], bar: str | None = None) -> None:
    """Log through the module, so that checkpoints and early stopping can monitor any key.

    Args:
        bar: key to show on the progress bar.
    """
    # Rank 0's values: a key that is NaN on one rank only is missing there, and the other ranks would wait for it.
    for key, value in module.trainer.strategy.broadcast(dict(figures)).items():
        # All ranks hold the same values now; sync_dist only avoids Lightning's warning.
        module.log(key, value, prog_bar=key == bar, on_step=False, on_epoch=True, sync_dist=True, batch_size=1)


def log_now(trainer: L.Trainer, figures: Mapping[str, float], step: int | None = None) -> None:
    """Log directly to the loggers, where Lightning allows no log or would drop values between its log steps.

    Args:
        step: counted from 0; None: that of the last trained batch, 0 before the first.
    """
    if figures:
        for logger in trainer.loggers:
            logger.log_metrics(dict(figures), step=max(trainer.global_step - 1, 0) if step is None else step)


def announce(trainer: L.Trainer, line: str) -> None:
    """Print one line, on rank 0."""
    if trainer.is_global_zero:
        print(line, flush=True)
