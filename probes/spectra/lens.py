"""The Zipf-wave lens: waves that we give to words, superposed by a model's attention. Synthetic: a prior of ours.

A word of rank r gets the frequency 0.5 + 9.5 (1 − ln(r+1) / ln(r_max+1)) Hz, four harmonics 1/h, 100 Hz, 2 s, and the
phase 2πi/T of its place. The superposition is Σ a_i w_i with the attention of the last token, mean over heads; its
coherence is the mean over time of |Σ a_i w_i| / Σ|a_i w_i|. It is a function of the attention and of our frequencies.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from probes.findings import Findings, Null
from probes.spectra.attention import last_attention
from probes.spectra.passes import as_read, place_of
from probes.spectra.texts import PROMPTS, as_text

DEALT = "our frequencies dealt to other tokens"
_DRAWS = 999
_HARMONICS, _RATE, _SECONDS = 4, 100, 2
_AT_ONCE = 100  # draws


def frequencies_by_rank(ranks: Tensor, largest: int, reverse: bool = False) -> Tensor:
    """Hz: 10 of rank 0 and 0.5 of the largest; the other way round if reversed."""
    share = torch.log(ranks.double() + 1) / math.log(largest + 1)
    return 0.5 + 9.5 * (share if reverse else 1 - share)


def coherence(attention: Tensor, frequencies: Tensor) -> Tensor:
    """Of attention (T,) and frequencies (…, T), in Hz."""
    n = len(attention)
    t = torch.arange(_RATE * _SECONDS, dtype=torch.float64) / _RATE
    phases = 2 * torch.pi * torch.arange(n, dtype=torch.float64) / n
    waves = torch.zeros(*frequencies.shape, len(t), dtype=torch.float64)
    for h in range(1, _HARMONICS + 1):
        waves += torch.sin(2 * torch.pi * h * frequencies[..., None] * t + phases[:, None]) / h
    waves *= attention.double()[:, None]
    return (waves.sum(-2).abs() / waves.abs().sum(-2).clamp_min(1e-300)).mean(-1)


def measure_lens(
    backbone: Backbone, tokenizer: Any, layers: Sequence[int], found: Findings, prefix: str, seed: int
) -> None:
    """``lens/layer_05/quantum/coherence`` …, and ``lens/layer_05/range`` over prompts with its null and p."""
    largest = backbone.shape.vocab_size - 1
    values: dict[int, dict[str, float]] = {layer: {} for layer in layers}
    drawn: dict[int, dict[str, Tensor]] = {layer: {} for layer in layers}
    generator = torch.Generator().manual_seed(seed)
    for name, prompt in PROMPTS.items():
        text = as_text(backbone, tokenizer, prompt)
        seen = as_read(backbone, text)
        ranks = torch.where(seen.special, largest, seen.ids)
        plain, reverse = (frequencies_by_rank(ranks, largest, way) for way in (False, True))
        words = (~seen.special).nonzero().flatten()  # special tokens keep theirs
        orders = torch.arange(len(ranks)).repeat(_DRAWS, 1)
        orders[:, words] = words[torch.rand(_DRAWS, len(words), generator=generator).argsort(1)]
        for layer, (heads, _) in last_attention(backbone, text, layers).items():
            attention = heads.mean(0)
            if not attention.isfinite().all():
                values.pop(layer, None)
            if layer not in values:
                continue
            at = f"{prefix}lens/{place_of(layer)}/{name}"
            null = torch.cat([coherence(attention, plain[some]) for some in orders.split(_AT_ONCE)])
            values[layer][name] = float(coherence(attention, plain))
            drawn[layer][name] = null
            population = f"{len(ranks)} tokens"
            found.add(f"{at}/coherence", values[layer][name], population, null=Null(DEALT, null.tolist()))
            found.add(f"{at}/coherence_permuted", float(null.mean()), population)
            found.add(f"{at}/coherence_reversed", float(coherence(attention, reverse)), population)
    for layer in layers:
        at = f"{prefix}lens/{place_of(layer)}"
        if layer in values:
            _add_range(values[layer], drawn[layer], at, found)
        else:
            found.leave_out(at, ("range", "p"), "attention is not finite")


def _add_range(values: Mapping[str, float], drawn: Mapping[str, Tensor], at: str, found: Findings) -> None:
    """How far prompts are apart, and how far they are with dealt frequencies."""
    null = torch.stack(list(drawn.values()))
    ranges = null.max(0).values - null.min(0).values
    observed = max(values.values()) - min(values.values())
    population = f"{len(values)} prompts"
    found.add(f"{at}/range", observed, population, null=Null(DEALT, ranges.tolist()))
    found.add(f"{at}/range_permuted", float(ranges.mean()), population)
    found.add(f"{at}/p", (1 + int((ranges >= observed - 1e-12).sum())) / (_DRAWS + 1), population)
