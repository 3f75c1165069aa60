"""Logging what a LightningModule measured, the same for all of them."""

from typing import Any


def log_quality(module: Any, stage: str, shown: str) -> None:
    """Log the figures of a module's ``quality`` as ``stage/…`` and reset it; those of a sanity check are dropped.

    Args:
        module: a LightningModule whose ``quality`` is a metric that computes a dictionary.
        stage: ``val`` or ``test``.
        shown: the figure that the progress bar shows.
    """
    figures = module.quality.compute()
    module.quality.reset()
    if module.trainer.sanity_checking:
        return
    for name, value in figures.items():
        # Every process has the sums of all already; without sync_dist Lightning warns.
        module.log(f"{stage}/{name}", value, prog_bar=name == shown, sync_dist=True, batch_size=1)
