r"""Fringes: does mean attention by lag rise and fall with a period, beyond its smooth trend?

RoPE and every phase Ωt have fringes by construction, Σ_w cos(Ω_w · lag), so a figure says something only beside such a
baseline and beside the untrained model.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

SHORTEST = 12  # lags
_PERIODS = 3  # that a fringe has at least: fewer are a smooth shape that the trend misses
_DEGREE = 3
_DRAWS = 999


class FringeTest(NamedTuple):
    """The largest peak of a spectrum over lags, of each head.

    Attributes:
        peak: its share of the power of all frequencies of at least three periods in the lags, (H,).
        period: in tokens, (H,).
        p: share of lag-permuted profiles with as large a peak, the profile itself counted, (H,).
        null: mean peak of lag-permuted profiles, (H,).
        residual: the profile minus its trend, (H, L).
    """

    peak: Tensor
    period: Tensor
    p: Tensor
    null: Tensor
    residual: Tensor


def lag_profile(weights: Float[Tensor, "B H T T"]) -> Float[Tensor, "H L"]:
    """Mean attention at the lags 1 … T // 2, each over the same queries, the later half.

    >>> lag_profile(torch.ones(1, 1, 4, 4).tril() / torch.arange(1.0, 5)[:, None])
    tensor([[0.2917, 0.2917]])
    """
    T = weights.shape[-1]
    queries = torch.arange(T // 2, T, device=weights.device)
    lags = torch.arange(1, T // 2 + 1, device=weights.device)
    return weights[..., queries[:, None], queries[:, None] - lags].mean((0, 2))


def _without_trend(lags: int) -> Float[Tensor, "L L"]:
    """The projection that takes away a cubic in ln lag, in fp64."""
    place = torch.arange(1, lags + 1, dtype=torch.float64).log()
    basis = torch.linalg.qr((place / place.max())[:, None] ** torch.arange(_DEGREE + 1)).Q
    return torch.eye(lags, dtype=torch.float64) - basis @ basis.mT


def fringe_test(profile: Float[Tensor, "H L"], generator: torch.Generator, draws: int = _DRAWS) -> FringeTest:
    """The largest peak of each profile's periodogram, after a cubic in ln lag is taken away, against permuted lags.

    Permuted residuals lose their trend again, as the profile did. Without any residual p is 1.

    Raises:
        ValueError: fewer than 12 lags.
    """
    L = profile.shape[1]
    if L < SHORTEST:
        raise ValueError(f"fringe_test: {L} lags; a period needs at least {SHORTEST}")
    plain = _without_trend(L)
    profile = profile.double().cpu()
    residual = profile @ plain
    residual = torch.where(residual.abs() > 1e-12 * profile.abs().amax(1, keepdim=True), residual, 0.0)
    peak, place = _peaks(residual).max(-1)
    orders = torch.rand(draws, L, generator=generator).argsort(1)
    drawn = _peaks(residual[:, orders] @ plain).amax(-1)  # (H, draws)
    p = (1 + (drawn >= peak[:, None] - 1e-12).sum(1)) / (draws + 1)
    return FringeTest(peak, L / (place + float(_PERIODS)), p, drawn.mean(1), residual)


def _peaks(residual: Float[Tensor, "*batch L"]) -> Float[Tensor, "*batch frequencies"]:
    """Share of each frequency of at least three periods in their power."""
    power = torch.fft.rfft(residual).abs().square()[..., _PERIODS:]
    return power / power.sum(-1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)
