"""Outputs of the heads of a layer: do their phases agree in a band, and how far do their directions?

A head's series is the first principal component of what it adds to the stream, along the tokens. Heads of a layer read
the same stream, so some agreement is expected; the question is whether it is more than with the text's tokens shuffled.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from modulant.geometry import analytic_signal, detrended, pairwise_phase_consistency, phase_randomised, principal_axes
from modulant.reports.wording import counted
from probes.findings import Findings, Null
from probes.spectra.passes import place_of

BANDS = {"low": (1 / 64, 1 / 16), "middle": (1 / 16, 1 / 6), "high": (1 / 6, 1 / 2.5)}  # cycles a token
SURROGATES = 200
LEAST = 32  # tokens that are left of a band
RANDOM_PHASES = "each head's series phase-randomised"
_AT_ONCE = 2**20  # numbers of surrogates


class Agreement(NamedTuple):
    """Of the heads of one layer on one text.

    Attributes:
        ppc: band → mean over pairs; None where too few tokens are left without the edges.
        surrogates: band → (draws,) the same of surrogates.
        cosine: mean over tokens and pairs.
    """

    ppc: Mapping[str, float | None]
    surrogates: Mapping[str, Tensor]
    cosine: float


@dataclass(frozen=True, eq=False)
class TextHeads:
    """What was measured on one text: layer → agreement, and band agreement with its tokens shuffled."""

    observed: Mapping[int, Agreement]
    shuffled: Mapping[int, Sequence[Agreement]]


def measure_heads(mixed: Tensor, weights: Tensor, generator: torch.Generator | None) -> Agreement:
    """Agreement of heads.

    Args:
        mixed: (tokens, heads, width) outputs before the output matrix.
        weights: (heads, width, D).
        generator: draws surrogates; None: none are drawn.
    """
    series = head_series(mixed, weights)
    ppc: dict[str, float | None] = {}
    for band in BANDS:
        ppc[band] = None if _kept(band, series.shape[-1]) is None else float(_consistency(series, band))
    drawn: dict[str, list[Tensor]] = {band: [] for band, value in ppc.items() if value is not None}
    if generator is not None and drawn:
        step = max(1, _AT_ONCE // series.numel())
        for start in range(0, SURROGATES, step):
            count = min(step, SURROGATES - start)
            surrogates = phase_randomised(series[None, ..., None].expand(count, -1, -1, 1), generator)[..., 0]
            for band, found in drawn.items():
                found.append(_consistency(surrogates, band))
    n_heads, directions = len(weights), torch.zeros(())
    for head in range(n_heads):
        directions = directions + F.normalize(mixed[:, head] @ weights[head], dim=-1)
    cosine = (directions.square().sum(-1) - n_heads) / max(n_heads * (n_heads - 1), 1)
    return Agreement(
        ppc,
        {band: torch.cat(found).double() for band, found in drawn.items() if found},
        float(cosine.double().mean()) if n_heads > 1 else math.nan,
    )


def head_series(mixed: Tensor, weights: Tensor) -> Tensor:
    """(heads, tokens): first principal component of each head's output, without trend.

    With Wᵀ = Q R the outputs y W are y Rᵀ, turned: components are found in the head's own width.
    """
    inner = mixed.transpose(0, 1) @ torch.linalg.qr(weights.mT).R.mT  # (heads, tokens, width)
    found = [(rows - rows.mean(0)) @ principal_axes(rows, 1)[0] for rows in inner]
    return detrended(torch.stack(found)[..., None])[..., 0]


def _kept(band: str, length: int) -> slice | None:
    """The tokens without the edges of a band, which are as long as its slowest period; None of too few."""
    edge = math.ceil(1 / BANDS[band][0])
    return slice(edge, length - edge) if length - 2 * edge >= LEAST else None


def _consistency(series: Tensor, band: str) -> Tensor:
    kept = _kept(band, series.shape[-1])
    assert kept is not None
    return pairwise_phase_consistency(analytic_signal(series, BANDS[band])[..., kept])


def add_heads(texts: Sequence[TextHeads], damaged: Collection[int], found: Findings, prefix: str) -> None:
    """``heads/low/ppc``, ``…/ppc_input_shuffled``, ``…/ppc_surrogate``, ``…/z``, over layers, and ``layer_03/heads/…``.

    Surrogates of a text and layer are independent of all others', so means over them are draws of the mean's null.
    """
    layers = [layer for layer in texts[0].observed if layer not in damaged]
    population = counted(len(texts), "text")
    for layer in layers:
        some = [text.observed[layer] for text in texts]
        at = f"{prefix}{place_of(layer)}/heads"
        cosine = sum(one.cosine for one in some) / len(some)
        found.add(f"{at}/cosine", cosine, population, null=Null("independent directions", [0.0]))
    for band in BANDS:
        by_layer: list[tuple[float, float, Tensor]] = []
        for layer in layers:
            long = [text for text in texts if text.observed[layer].ppc[band] is not None]
            values = [text.observed[layer].ppc[band] for text in long]
            shuffled = [_mean([one.ppc[band] for one in text.shuffled[layer]]) for text in long]
            if not long or math.isnan(_mean(values)):
                continue
            draws = torch.stack([text.observed[layer].surrogates[band] for text in long]).mean(0)
            by_layer.append((_mean(values), _mean(shuffled), draws))
            _add_band(found, f"{prefix}{place_of(layer)}/heads/{band}", counted(len(long), "text"), *by_layer[-1])
        if not by_layer:
            least = 2 * math.ceil(1 / BANDS[band][0]) + LEAST
            why = f"fewer than {least} tokens, or a single head"
            found.leave_out(f"{prefix}heads/{band}", ("ppc", "ppc_input_shuffled", "ppc_surrogate", "z"), why)
            continue
        mean = torch.stack([one[2] for one in by_layer]).mean(0)
        what = f"{population}, mean over {len(by_layer)} layers"
        own, other = _mean([one[0] for one in by_layer]), _mean([one[1] for one in by_layer])
        _add_band(found, f"{prefix}heads/{band}", what, own, other, mean)


def _add_band(found: Findings, at: str, population: str, value: float, shuffled: float, draws: Tensor) -> None:
    found.add(f"{at}/ppc", value, population, null=Null(RANDOM_PHASES, draws.tolist()))
    found.add(f"{at}/ppc_input_shuffled", shuffled, population)
    found.add(f"{at}/ppc_surrogate", float(draws.mean()), population)
    found.add(f"{at}/z", (value - float(draws.mean())) / float(draws.std(correction=0)), population)


def _mean(values: Sequence[float | None]) -> float:
    return math.fsum(value for value in values if value is not None) / len(values)
