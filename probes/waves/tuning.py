"""Equal tuning: a grid of learning rates for each arm, extended where the best is at an edge, then over whole runs.

A short run takes a higher rate than a long one. So the best rate of the short runs is compared with its neighbours over
whole runs, on the tuning's seed, for as long as a neighbour is better.
"""

import math
from collections.abc import Mapping

POINTS, FACTOR = 5, 2.0
WEIGHTS, WEIGHT_FACTOR = (3e-3, 1e-2, 3e-2), 10**0.5  # λ
LENGTH = 0.25  # of a whole run's steps
MOST = 7  # whole runs of an arm's tuning


def grid(centre: float) -> list[float]:
    """Rates around a centre, each twice the one before.

    >>> grid(4e-3)
    [0.001, 0.002, 0.004, 0.008, 0.016]
    """
    return [_rounded(centre * FACTOR**i) for i in range(-(POINTS // 2), POINTS // 2 + 1)]


def extension(found: Mapping[float, float], factor: float = FACTOR) -> list[float]:
    """Two more values beyond the edge that is the best; none where the best lies inside, or all have diverged.

    Args:
        found: value → bits per byte on the validation part, not finite where a run diverged.
        factor: from one value to the next.

    >>> extension({1.0: 3.0, 2.0: 2.0, 4.0: 2.5, 8.0: 2.6, 16.0: 3.0})
    []
    >>> extension({1.0: 3.0, 2.0: 2.9, 4.0: 2.5, 8.0: 2.4, 16.0: 2.0})
    [32.0, 64.0]
    """
    if not any(map(math.isfinite, found.values())):
        return []
    rates, chosen = sorted(found), best(found)
    if chosen == rates[0]:
        return [_rounded(chosen / factor**i) for i in (1, 2)]
    return [_rounded(chosen * factor**i) for i in (1, 2)] if chosen == rates[-1] else []


def neighbours(found: Mapping[float, float], start: float) -> list[float]:
    """Rates to try next over whole runs: those beside the best so far that were not tried yet.

    Args:
        found: rate → bits per byte of whole runs; empty at first.
        start: the best of the short runs.

    >>> neighbours({}, 4e-3)
    [0.002, 0.004, 0.008]
    >>> neighbours({0.002: 2.4, 0.004: 2.5, 0.008: 2.6}, 4e-3)
    [0.001]
    >>> neighbours({0.001: 2.5, 0.002: 2.4, 0.004: 2.5, 0.008: 2.6}, 4e-3)
    []
    """
    if len(found) >= MOST:
        return []
    known = any(map(math.isfinite, found.values()))
    centre = best(found) if known else min(found, default=start)
    wanted = [_rounded(centre / FACTOR), _rounded(centre), _rounded(centre * FACTOR)]
    return [rate for rate in wanted if rate not in found]


def best(found: Mapping[float, float]) -> float:
    """The rate with the fewest bits per byte; of equal ones the smallest.

    Raises:
        ValueError: all have diverged.

    >>> best({1e-3: 2.5, 2e-3: 2.25, 4e-3: float("nan")})
    0.002
    """
    known = [(bits, rate) for rate, bits in found.items() if math.isfinite(bits)]
    if not known:
        raise ValueError(f"every learning rate of {', '.join(f'{rate:g}' for rate in sorted(found))} has diverged")
    return min(known)[1]


def _rounded(rate: float) -> float:
    return float(f"{rate:.4g}")


def named(value: float) -> str:
    """A number as part of a folder's name: no dot.

    >>> named(0.004)
    '4e-03'
    """
    return f"{value:.3e}".replace(".", "_").replace("_000e", "e")
