"""Sizes of the entries of a matrix, and what they are if the entries are Gaussian."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

ABSOLUTE = (1e-4, 1e-3, 1e-2, 1e-1)
RELATIVE = (0.01, 0.1, 1.0)  # in units of the root mean square
_PER_BLOCK = 1 << 17  # entries that stay in a core's cache while they are compared


def entry_figures(matrix: Float[Tensor, "m n"]) -> dict[str, float]:
    r"""Shares of small entries, and moments; streamed in blocks, sums in fp64.

    Returns:
        ``rms``; ``kurtosis``, E(w − w̄)⁴ / (E(w − w̄)²)² − 3, of a Gaussian 0; ``zeros``, the share of exact zeros;
        ``below_0.1`` …, the share of |w| < 0.1; ``below_0.1_rms`` …, that of |w| < 0.1 rms. ``finite``: the share of
        entries that are neither NaN nor infinite; below 1 all other figures are NaN.

    >>> entry_figures(torch.tensor([[0.0, 1.0], [-1.0, 2.0]]))["below_1_rms"]
    0.75
    """
    entries = matrix.reshape(-1)
    n = len(entries)
    sums = torch.zeros(4, dtype=torch.float64)
    for block in entries.split(_PER_BLOCK):
        x = block.double()
        squares = x.square()
        sums += torch.stack((x.sum(), squares.sum(), (squares * x).sum(), squares.square().sum())).cpu()
    if not sums.isfinite().all():
        finite = sum(int(block.isfinite().sum()) for block in entries.split(_PER_BLOCK)) / n
        return dict.fromkeys(_NAMES, math.nan) | {"finite": finite}
    mean, second, third, fourth = (sums / n).tolist()
    variance = second - mean * mean
    central = fourth - 4 * mean * third + 6 * mean**2 * second - 3 * mean**4
    rms = math.sqrt(second)
    shares = shares_below(matrix, [*ABSOLUTE, *(share * rms for share in RELATIVE)])
    zeros = (n - int(entries.count_nonzero())) / n
    values = [rms, central / variance**2 - 3 if variance > 0 else math.nan, *shares, zeros]
    return dict(zip(("rms", "kurtosis", *_SHARES, "zeros"), values, strict=True)) | {"finite": 1.0}


def shares_below(matrix: Float[Tensor, "m n"], limits: Sequence[float]) -> list[float]:
    """Share of the entries with |w| below each limit, by blocks that stay in a core's cache.

    >>> shares_below(torch.tensor([[0.0, 1.0], [-1.0, 2.0]]), [0.5, 1.5])
    [0.25, 0.75]
    """
    entries = matrix.reshape(-1)
    below = torch.zeros(len(limits), dtype=torch.int64)
    for block in entries.split(_PER_BLOCK):
        sizes = block.abs().float()
        below += torch.stack([(sizes < limit).sum() for limit in limits]).cpu()
    found: list[float] = (below.double() / len(entries)).tolist()
    return found


_SHARES = (*(f"below_{limit:g}" for limit in ABSOLUTE), *(f"below_{share:g}_rms" for share in RELATIVE))
_NAMES = ("rms", "kurtosis", *_SHARES, "zeros")


def gaussian_entries(rms: float) -> dict[str, float]:
    r"""What `entry_figures` are of independent Gaussians of this size: P(|w| < t) = erf(t / (√2 rms)).

    >>> round(gaussian_entries(0.125)["below_0.1"], 4), round(gaussian_entries(3.0)["below_1_rms"], 4)
    (0.5763, 0.6827)
    """
    limits = [limit / rms if rms else math.inf for limit in ABSOLUTE]
    shares = [math.erf(limit / math.sqrt(2)) for limit in (*limits, *RELATIVE)]
    return {"kurtosis": 0.0, "zeros": 0.0} | dict(zip(_SHARES, shares, strict=True))
