"""Percentile intervals of bootstrap replicates. NumPy alone: probes read replicates from files."""

import numpy as np
from numpy.typing import NDArray


def percentile_interval(
    replicates: NDArray[np.float64], level: int = 95, finite: float = 1.0
) -> tuple[float, float] | None:
    """Ends of the middle `level` per cent of the finite replicates, linear between order statistics.

    Args:
        replicates: one-dimensional.
        level: per cent, within (0, 100).
        finite: share of the replicates that must be finite; None where fewer are.

    >>> percentile_interval(np.arange(101.0))
    (2.5, 97.5)
    """
    if not 0 < level < 100:
        raise ValueError(f"percentile_interval: level is {level}; it must lie between 0 and 100 per cent")
    usable = replicates[np.isfinite(replicates)]
    if not len(usable) or len(usable) < finite * len(replicates):
        return None
    low, high = np.percentile(usable, ((100 - level) / 2, (100 + level) / 2))
    return float(low), float(high)
