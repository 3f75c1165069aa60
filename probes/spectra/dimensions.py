"""The FFT over dimensions, tested once: does it change when a model's dimensions are put in another order?

Dimensions have no order, and of permuted ones the expected power is the same at every frequency (`permuted_power`). So
what such a spectrum says is the variance, and how much of it one large dimension has.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from modulant.geometry import spectral_concentration
from probes.findings import Findings, Null
from probes.spectra.attention import last_attention
from probes.spectra.passes import place_of
from probes.spectra.texts import PROMPTS, as_text

ROWS = 24  # tokens a layer, over all texts
LEAST = 6  # dimensions: of fewer a spectrum has one frequency
_DRAWS = 999
PERMUTED = "dimensions permuted"


def some_rows(states: Tensor, count: int) -> Tensor:
    """As many rows, at even distances."""
    return states[torch.linspace(0, len(states) - 1, min(count, len(states))).long()].clone()


def measure_dimensions(rows: Mapping[int, Sequence[Tensor]], found: Findings, prefix: str, seed: int) -> None:
    """``dimensions/concentration``, ``…/concentration_permuted``, ``…/p``.

    One permutation a draw, the same for all tokens and layers; the statistic is the mean over both. p is two-sided.
    """
    clouds = [torch.cat(list(some)) for some in rows.values()]
    if not clouds or clouds[0].shape[-1] < LEAST:
        names = ("concentration", "concentration_permuted", "p")
        found.leave_out(f"{prefix}dimensions", names, f"no finite states, or fewer than {LEAST} dimensions")
        return
    stacked = torch.stack(clouds)
    total, draws = _mean_concentration(stacked), _permuted(stacked, seed)
    far = (draws - draws.mean()).abs() >= abs(total - float(draws.mean())) - 1e-12
    population = f"{stacked.shape[1]} tokens of each of {len(clouds)} layers"
    found.add(f"{prefix}dimensions/concentration", total, population, null=Null(PERMUTED, draws.tolist()))
    found.add(f"{prefix}dimensions/concentration_permuted", float(draws.mean()), population)
    found.add(f"{prefix}dimensions/p", (1 + int(far.sum())) / (_DRAWS + 1), population)


def measure_contexts(
    backbone: Backbone, tokenizer: Any, layers: Sequence[int], found: Findings, source: str, seed: int
) -> None:
    """``<source>layer_03/concentration`` and ``…/interference`` of the five prompts, as they were published.

    Both are of contexts, the states averaged by the last token's attention: of mean attention over heads, and of each
    head's. Interference is ‖mean_h c_h‖² over the mean of ‖c_h‖²: by Jensen's inequality never above 1.
    """
    by_layer: dict[int, list[Tensor]] = {layer: [] for layer in layers}
    for prompt in PROMPTS.values():
        for layer, last in last_attention(backbone, as_text(backbone, tokenizer, prompt), layers).items():
            by_layer[layer].append(last.contexts)
    for layer, some in by_layer.items():
        contexts, at = torch.stack(some), f"{source}{place_of(layer)}"
        if not contexts.isfinite().all() or contexts.shape[-1] < LEAST:
            found.leave_out(at, ("concentration", "interference"), f"not finite, or fewer than {LEAST} dimensions")
            continue
        population, mean = f"{len(PROMPTS)} prompts, {contexts.shape[1]} heads", contexts.mean(1)
        null = Null(PERMUTED, _permuted(mean, seed).tolist())
        found.add(f"{at}/concentration", _mean_concentration(mean), population, null=null)
        agreement = mean.square().sum(-1) / contexts.square().sum(-1).mean(-1)
        null = Null("heads with nothing in common: 1/H", [1 / contexts.shape[1]])
        found.add(f"{at}/interference", float(agreement.mean()), population, null=null)


def _mean_concentration(points: Tensor) -> float:
    return float(spectral_concentration(points).double().mean())


def _permuted(points: Tensor, seed: int) -> Tensor:
    """(draws,) mean concentration, one order of the dimensions a draw."""
    generator, dim = torch.Generator().manual_seed(seed), points.shape[-1]
    orders = (torch.randperm(dim, generator=generator) for _ in range(_DRAWS))
    # Numbers, since small tensors among large ones would keep the heap from being given back.
    return torch.tensor([_mean_concentration(points[..., order]) for order in orders], dtype=torch.float64)
