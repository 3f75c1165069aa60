r"""Harmonics along a series: is there power at f, 2f and 3f together?

Phase randomisation keeps a periodogram as it is, by definition, so a figure of the periodogram alone would be equal to
each of its surrogates. A surrogate here has random phases and, in addition, the whitened powers in another order: what
is kept is the smooth spectrum and every line in it, what is lost is where lines stand to each other.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modulant.geometry import detrended

HARMONICS = 3
_PERIODS = 3  # of a fundamental, at least: below it the places of its harmonics overlap
_DRAWS = 999
_FLOOR = 1e-12  # of the largest power: a line alone has nothing but rounding around it
_ROUNDING = 1e-20  # of a series' squares: less power is what rounding left of a constant


class HarmonicTest(NamedTuple):
    """A harmonic sum and what surrogates have.

    Attributes:
        statistic: the largest harmonic sum.
        frequency: of its fundamental, cycles a sample.
        p: share of surrogates with one as large, the series itself counted; NaN where nothing varies.
        surrogates: their largest sums, (draws,).
    """

    statistic: float
    frequency: float
    p: float
    surrogates: Tensor


def shortest_series(harmonics: int = HARMONICS) -> int:
    """Samples that a series needs at least."""
    return 2 * _PERIODS * harmonics + 1


def periodogram(series: Float[Tensor, "*texts samples columns"]) -> Float[Tensor, " frequencies"]:
    """Σ_columns |X_k|² of the detrended series, k = 1 … below ½; mean over texts, each of which has mean 1.

    Texts that do not vary are left out; NaN if none does.
    """
    rows = detrended(series.double()).flatten(0, -3) if series.dim() > 2 else detrended(series.double())[None]
    n = rows.shape[-2]
    power = torch.fft.rfft(rows, dim=-2)[:, 1 : (n + 1) // 2].abs().square().sum(-1)
    power = torch.where(power.sum(-1, keepdim=True) > _ROUNDING * series.double().square().sum(), power, torch.nan)
    return (power / power.mean(-1, keepdim=True)).nanmean(0)


def whitened(power: Float[Tensor, " frequencies"]) -> Float[Tensor, " frequencies"]:
    """ln(1 + P/B), B the running median of about a quarter of the spectrum."""
    K = len(power)
    reach = max(4, K // 8)
    background = torch.stack([power[max(k - reach, 0) : k + reach + 1].median() for k in range(K)])
    return (power / background.clamp_min(_FLOOR * power.max())).log1p()


def harmonic_sums(power: Float[Tensor, "*batch K"], harmonics: int = HARMONICS) -> Float[Tensor, "*batch fundamentals"]:
    """Σ_n power at n k, k = 3 … K / harmonics; from n = 2 on the largest of n k − 1 … n k + 1.

    A fundamental that lies between two frequencies has its harmonics beside the multiples.

    >>> harmonic_sums(torch.eye(9)[[2, 5, 8]].sum(0))
    tensor([3.])
    """
    k = torch.arange(_PERIODS, power.shape[-1] // harmonics + 1, device=power.device)
    near = F.max_pool1d(power.flatten(0, -2)[:, None] if power.dim() > 1 else power[None, None], 3, 1, 1)
    near = near.reshape(power.shape)
    return torch.stack([(near if n > 1 else power)[..., n * k - 1] for n in range(1, harmonics + 1)]).sum(0)


def harmonic_test(
    series: Float[Tensor, "*texts samples columns"],
    generator: torch.Generator,
    harmonics: int = HARMONICS,
    draws: int = _DRAWS,
) -> HarmonicTest:
    """The largest sum of whitened powers at f, 2f, … against surrogates; f of at least three periods in the series.

    Args:
        series: texts of as many samples each; their powers are averaged.
        generator: of the surrogates.
        harmonics: how many, the fundamental among them.
        draws: surrogates.

    Raises:
        ValueError: the series is too short.
    """
    if series.shape[-2] < shortest_series(harmonics):
        raise ValueError(
            f"harmonic_test: {series.shape[-2]} samples; {harmonics} harmonics of a wave of {_PERIODS} periods need at "
            f"least {shortest_series(harmonics)}"
        )
    n = series.shape[-2]
    power = periodogram(series).cpu()
    if not power.isfinite().all():
        return HarmonicTest(math.nan, math.nan, math.nan, torch.full((draws,), math.nan))
    power = whitened(power)
    sums = harmonic_sums(power, harmonics)
    orders = torch.rand(draws, len(power), generator=generator).argsort(1)
    surrogates = harmonic_sums(power[orders], harmonics).amax(1)
    best = int(sums.argmax())
    p = (1 + int((surrogates >= sums[best] - 1e-12).sum())) / (draws + 1)
    return HarmonicTest(float(sums[best]), (best + _PERIODS) / n, p, surrogates)
