r"""Merge several modulators into one.

**LERP** is affine in the stream, so a weighted mean of the outputs of several is again a LERP: with ᾱ_l = Σ_i w_i α_il,

    Σ_i w_i [(1 − α_il) h + α_il W_i g_i] = (1 − ᾱ_l) h + ᾱ_l · Σ_i (w_i α_il / ᾱ_l) W_i g_i.

Concatenated, g = [g_1 … g_n] and W = [c_1 W_1 … c_n W_n] give Σ c_i W_i g_i in Σ G_i dimensions. If the parts' α are in
the same proportion at every layer, c_i = w_i α_il / ᾱ_l is the same for all layers and the merged modulator's step
**is** that mean. Otherwise one `W` cannot serve all layers: c_i is the share over all layers, Σ_l w_i α_il / Σ_l ᾱ_l;
the factor (1 − ᾱ_l) stays exact, the target term does not. Parameters are not averaged: `g` and `W` of two trainings
are determined only up to an invertible map between them.

**Any other class**, the field included, is not affine: no member of the class computes the mean of outputs. Its
parameters are averaged, α's logits included, as in model soups (Wortsman et al., 2022). This approximates the mean of
outputs if the parts lie close together, as runs do that began from the same initial values (the same
`seed_everything`); for unrelated runs the result is noise. An artefact does not record which of the two holds.

In both cases the step of one layer is averaged: over several layers, with encoder blocks in between, a mean of steps is
not the mean of the models.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from modulant.reports.wording import counted
from modulators.base import Modulator
from modulators.fused import FusedLerp
from modulators.lerp import LerpModulator

_SUM_TOLERANCE = 1e-6  # of the weights' sum, which must be 1


def merge(modulators: Sequence[Modulator], weights: Sequence[float] | None = None) -> Modulator:
    """Return a new modulator that stands for a weighted mean of several; the module docstring says what is exact.

    Args:
        modulators: of one class, for backbones of the same sizes; they are not changed.
        weights: not negative, with sum 1; None: all equal.

    Returns:
        The merged modulator, on the CPU. A LERP has as many geometric dimensions as all its parts together.

    Raises:
        ValueError: no modulator, modulators of several classes or sizes, or built with different arguments that are
            part of the formula (experts, bounds of α, null space), or weights that are negative or do not sum to 1.
    """
    # A fused LERP is a snapshot of one that can be merged.
    parts = [part.unfused if isinstance(part, FusedLerp) else part for part in modulators]
    shares = _shares(len(parts), weights)
    first = parts[0]
    for part in parts[1:]:
        if type(part) is not type(first):
            raise ValueError(f"merge: a {type(first).__name__} and a {type(part).__name__} cannot be merged")
        if part.stream != first.stream:
            raise ValueError(f"merge: built for {first.stream} and for {part.stream}; both must be of the same sizes")
    with torch.no_grad():
        if isinstance(first, LerpModulator):
            return _merge_lerp([part for part in parts if isinstance(part, LerpModulator)], shares)
        return _average(parts, shares)


def _merge_lerp(parts: Sequence[LerpModulator], shares: Sequence[float]) -> LerpModulator:
    alphas = torch.stack([part.alphas.double().cpu() for part in parts])  # (parts, layers, 1)
    weighted = torch.tensor(shares, dtype=torch.float64)[:, None, None] * alphas
    mean = weighted.sum(0)
    pull = weighted.sum((1, 2)) / mean.sum()  # (parts,)
    args = parts[0].init_args | {
        "n_geometric_dims": sum(part.n_geometric_dims for part in parts),
        "per_layer_alpha": any(part.init_args["per_layer_alpha"] for part in parts),
        "learnable_alpha": any(part.init_args["learnable_alpha"] for part in parts),
    }
    merged = LerpModulator(parts[0].stream, **args)
    rows = [part.geometric_embed.weight.cpu() for part in parts]
    columns = [float(c) * part.proj.weight.cpu() for c, part in zip(pull, parts, strict=True)]
    merged.place_geometry(torch.cat(rows, dim=1), torch.cat(columns, dim=1))
    merged.alpha_logits.copy_(mean[: len(merged.alpha_logits)].logit())
    return merged


def _average(parts: Sequence[Modulator], shares: Sequence[float]) -> Modulator:
    first = parts[0]
    # initial_alpha says only where α began; it is not part of the formula.
    compared = [{key: value for key, value in part.init_args.items() if key != "initial_alpha"} for part in parts]
    first_args = compared[0]
    for other in compared[1:]:
        if differing := sorted(
            key for key in first_args.keys() | other.keys() if first_args.get(key) != other.get(key)
        ):
            key = differing[0]
            raise ValueError(
                f"merge: {key} is {first_args.get(key)!r} and {other.get(key)!r}; {type(first).__name__}s are merged "
                "parameter by parameter, so their arguments must be equal"
            )
    merged = type(first)(first.stream, **first.init_args)
    states = [part.state_dict() for part in parts]
    merged.load_state_dict({name: _mean([state[name] for state in states], shares) for name in states[0]})
    return merged


def _mean(tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Weighted mean in double precision, so that the mean of equal tensors is that tensor, bit for bit."""
    total = sum(share * tensor.double().cpu() for share, tensor in zip(shares, tensors, strict=True))
    assert isinstance(total, Tensor)
    return total.to(tensors[0].dtype)


def _shares(n: int, weights: Sequence[float] | None) -> list[float]:
    if n == 0:
        raise ValueError("merge: no modulator; give two or more")
    shares = [1 / n] * n if weights is None else [float(weight) for weight in weights]
    if len(shares) != n:
        raise ValueError(f"merge: {counted(len(shares), 'weight')} for {n} modulators; give one for each")
    if not all(math.isfinite(share) and share >= 0 for share in shares) or abs(sum(shares) - 1) > _SUM_TOLERANCE:
        raise ValueError(f"merge: weights are {shares}; they must not be negative, and must sum to 1")
    return shares
