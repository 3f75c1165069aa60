"""How closely scores of word pairs follow people's ratings: Spearman's ρ, with a bootstrap over pairs. NumPy alone.

A replicate draws as many pairs as there are, with replacement. Every column of scores gets the same draws, so the
difference of two within a replicate is a replicate of the change, free of the noise that both share.
"""

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from modulant.metrics.functional.intervals import percentile_interval

_FINITE = 0.5  # share of the replicates that must have a correlation; a draw of few pairs may repeat one alone


def spearman(x: Float[np.ndarray, "pairs"], y: Float[np.ndarray, "pairs"]) -> float:
    """Spearman's ρ as SciPy has it: Pearson's r of ranks, equal values sharing the mean of theirs.

    NaN for fewer than two pairs, where x or y does not vary, or where a value is NaN.

    >>> round(spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])), 4)
    0.5
    """
    (rho,) = _weighted_spearman(x, y, np.ones((1, len(x)), dtype=np.int64))
    return float(rho)


def bootstrap_spearman(
    x: Float[np.ndarray, "pairs"], y: Float[np.ndarray, "pairs"], replicates: int = 1000, seed: int = 42
) -> Float[np.ndarray, "replicates"]:
    """Spearman's ρ of resampled pairs; NaN where nothing varies in a replicate.

    The draws depend on number of pairs, `replicates` and `seed` alone: they are the same for every x and y.

    Raises:
        ValueError: fewer than 2 replicates.
    """
    if replicates < 2:
        raise ValueError(f"bootstrap_spearman: replicates is {replicates}; an interval needs at least 2")
    n = len(x)
    drawn = np.random.default_rng(seed).integers(n, size=(replicates, n)) if n else np.zeros((replicates, 0), int)
    counts = np.zeros((replicates, n), dtype=np.int64)
    np.add.at(counts, (np.arange(replicates)[:, None], drawn), 1)
    return _weighted_spearman(x, y, counts)


def similarity_figures(
    ratings: Float[np.ndarray, "pairs"],
    before: Float[np.ndarray, "pairs"],
    after: Float[np.ndarray, "pairs"] | None = None,
    replicates: int = 1000,
    seed: int = 42,
) -> dict[str, float]:
    """Spearman's ρ of scores with ratings, each with its 95% interval.

    Args:
        ratings: people's.
        before: scores of the original encoder.
        after: scores of the modulated one.
        replicates: behind each interval.
        seed: seed of the resampling.

    Returns:
        ``n`` pairs; ``before``, ``before_low``, ``before_high``; with `after` the same of ``after`` and of ``change``,
        after − before. NaN where fewer than three pairs are left or nothing varies.
    """
    figures = {"n": float(len(ratings))}
    rho: dict[str, float] = {}
    draws: dict[str, NDArray[np.float64]] = {}
    for name, scores in (("before", before), ("after", after)):
        if scores is not None:
            rho[name] = spearman(scores, ratings) if len(ratings) > 2 else float("nan")
            draws[name] = bootstrap_spearman(scores, ratings, replicates, seed)
    if after is not None:
        rho["change"] = rho["after"] - rho["before"]
        draws["change"] = draws["after"] - draws["before"]
    for name, value in rho.items():
        ends = percentile_interval(draws[name], finite=_FINITE) if np.isfinite(value) else None
        low, high = ends or (float("nan"), float("nan"))
        figures |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return figures


def _weighted_spearman(
    x: Float[np.ndarray, "pairs"], y: Float[np.ndarray, "pairs"], counts: Int[np.ndarray, "replicates pairs"]
) -> Float[np.ndarray, "replicates"]:
    """Spearman's ρ where pair i stands counts[·, i] times."""
    if counts.shape[1] < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.full(len(counts), np.nan)
    a, b = _centred_ranks(x, counts), _centred_ranks(y, counts)
    covariance, spread_a, spread_b = ((counts * u * v).sum(1) for u, v in ((a, b), (a, a), (b, b)))
    varies = (spread_a > 0) & (spread_b > 0)  # ranks are multiples of ½: a sum of their squares is 0 or at least ½
    scale = np.sqrt(np.where(varies, spread_a, 1.0) * np.where(varies, spread_b, 1.0))
    rho: NDArray[np.float64] = np.where(varies, np.clip(covariance / scale, -1, 1), np.nan)
    return rho


def _centred_ranks(
    values: Float[np.ndarray, "pairs"], counts: Int[np.ndarray, "replicates pairs"]
) -> Float[np.ndarray, "replicates pairs"]:
    """Mean rank of each value among `counts` copies of all, minus the mean of all ranks."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    first = np.flatnonzero(np.diff(place[order], prepend=-1))
    tied = np.add.reduceat(counts[:, order], first, axis=1)  # (replicates, distinct values)
    ranks: NDArray[np.float64] = tied.cumsum(1) - tied / 2 - tied.sum(1, keepdims=True) / 2
    return ranks[:, place]
