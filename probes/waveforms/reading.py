"""One model read on windows of text: states, attention by lag, parts of logits, growth in depth."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wavegpt import Observed, WaveGPT
from wavegpt.attention.base import Attention
from wavegpt.attention.phased import Phased
from wavegpt.attention.places import places_of
from wavegpt.diagnostics.fringes import lag_profile
from wavegpt.diagnostics.scores import Scores, scores_of, weights_of
from wavegpt.diagnostics.stability import model_growth
from wavegpt.diagnostics.usage import variance_shares

TEXTS, DIRECTIONS = 8, 4  # of stability
_AT_ONCE = 2**24  # weights of a head and window, held at once


@dataclass(frozen=True, eq=False)
class Reading:
    """What one model computes on windows.

    Attributes:
        states: the stream, place by place from the embedded tokens on, (windows, T, d) each.
        profile: mean attention by lag, (L, H, lags).
        intensity: mean logits by lag, (L, H, lags).
        shares: covariance of cross term and key's part with the logits, and their variance, (L, H, 3).
        omega: mean |ω(x)/Ω − 1| of each layer, (L,); empty where frequencies are fixed or free.
        growth: ln growth of random directions, (L, texts, directions).
    """

    states: list[Tensor]
    profile: Tensor
    intensity: Tensor
    shares: Tensor
    omega: Tensor
    growth: Tensor


@torch.no_grad()
def read(model: WaveGPT, ids: Tensor, seed: int) -> Reading:
    """Read a model on windows (n, T)."""
    T, heads = ids.shape[1], model.config.heads
    some = max(1, _AT_ONCE // (heads * T * T * 4))
    allowed = torch.ones(T, T, dtype=torch.bool).tril()
    states: list[list[Tensor]] = []
    profiles, intensities, shares, omegas = [], [], [], []
    for part in ids.split(some):
        observed = Observed(with_features=True)
        model(part, observed=observed)
        states.append(observed.states)
        places = places_of(part, None, None)
        by_layer: list[list[Tensor]] = [[], [], [], []]
        for block, x, (query, key) in zip(model.blocks, observed.states, observed.features, strict=False):
            attention = block.attention
            assert isinstance(attention, Attention)
            scores = scores_of(attention, query, key)
            by_layer[0].append(lag_profile(weights_of(attention, query, key, places)))
            by_layer[1].append(lag_profile(scores.total))
            by_layer[2].append(torch.stack(variance_shares(scores, allowed), dim=-1))
            if isinstance(attention, Phased) and _has_ladder(attention):
                omega = attention._omega(block.attention_norm(x), places)[1]  # type: ignore[operator]
                ladder = places.ladder(attention.W, attention.about.rope_base, omega.dtype)
                by_layer[3].append((omega / ladder - 1).abs().mean())
        share = len(part) / len(ids)
        profiles.append(torch.stack(by_layer[0]).double() * share)
        intensities.append(torch.stack(by_layer[1]).double() * share)
        shares.append(torch.stack(by_layer[2]))
        if by_layer[3]:
            omegas.append(torch.stack(by_layer[3]).double() * share)
    return Reading(
        [torch.cat(place) for place in zip(*states, strict=True)],
        sum_of(profiles),
        sum_of(intensities),
        sum_of(shares),
        sum_of(omegas),
        model_growth(model, ids[:TEXTS], DIRECTIONS, torch.Generator().manual_seed(seed)),
    )


def _has_ladder(attention: Phased) -> bool:
    return hasattr(attention, "frequency") and attention.about.frequency == "ladder"


def sum_of(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0) if parts else torch.empty(0)


@torch.no_grad()
def sentence_scores(model: WaveGPT, ids: list[int]) -> list[Scores]:
    """Parts of the logits of one sentence, layer by layer."""
    observed = Observed(with_features=True)
    model(torch.tensor([ids]), observed=observed)
    found = []
    for block, (query, key) in zip(model.blocks, observed.features, strict=True):
        assert isinstance(block.attention, Attention)
        found.append(scores_of(block.attention, query, key))
    return found
