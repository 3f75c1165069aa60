r"""The field's gates on the stream, with a written-out gradient.

    a ← a · Π_e f_e,    f_e = κ_e + s_e · gate_e,    gate_e = sigmoid(W_e x_e + b_e)

Per token and expert, x_e are the features of its simplex, s_e = α_e · validity_e and κ_e = 1 − α_e. Gates are as wide
as the stream and there is one for each expert: autograd would keep ten times the stream. Here nothing as wide as the
stream is kept but the stream itself; the backward pass computes each gate again, which is a product with at most eleven
features and a sigmoid, and works in place. With g = ∂L/∂out and r_e = ∂L/∂f_e = g · a · Π_{j ≠ e} f_j:

    ∂L/∂a = g · Π f_e                 ∂L/∂κ_e = Σ r_e
    ∂L/∂s_e = Σ_width r_e · gate_e    ∂L/∂z_e = s_e · r_e · gate_e (1 − gate_e)
"""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


def gated(
    rows: Float[Tensor, "tokens width"],
    strength: Float[Tensor, "experts tokens"],
    kept: Float[Tensor, " experts"],
    features: Sequence[Float[Tensor, "tokens _"]],
    weights: Sequence[Float[Tensor, "active _"]],
    biases: Sequence[Float[Tensor, " active"]],
) -> Float[Tensor, "tokens width"]:
    """`rows` with the first dimensions, as many as the gates are wide, gated; the others are copied, to the bit.

    All but `rows` have one dtype, in which is computed; the result has the dtype of `rows`. Differentiable once.
    """
    if torch.compiler.is_compiling():  # a compiler fuses the plain formula and its gradient by itself
        return plainly_gated(rows, strength, kept, features, weights, biases)
    return cast(Tensor, _Gated.apply(rows, strength, kept, *features, *weights, *biases))  # type: ignore[no-untyped-call]


def plainly_gated(
    rows: Float[Tensor, "tokens width"],
    strength: Float[Tensor, "experts tokens"],
    kept: Float[Tensor, " experts"],
    features: Sequence[Float[Tensor, "tokens _"]],
    weights: Sequence[Float[Tensor, "active _"]],
    biases: Sequence[Float[Tensor, " active"]],
) -> Float[Tensor, "tokens width"]:
    """The same as the formula stands, differentiable as often as one likes."""
    n_active = len(biases[0])
    active = rows[:, :n_active].to(strength.dtype)
    for e, (own, weight, bias) in enumerate(zip(features, weights, biases, strict=True)):
        gate = torch.addmm(bias, own, weight.t()).sigmoid()
        active = active * torch.addcmul(kept[e], strength[e].unsqueeze(-1), gate)
    return torch.cat([active.to(rows.dtype), rows[:, n_active:]], dim=-1)


class _Gated(torch.autograd.Function):
    """Biases are a last column of the weights here, and features have a last column of ones: a product with a bias to
    add costs a pass over its result more."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: Tensor, kept: Tensor, *each: Tensor) -> Tensor:
        features, weights = _augmented(each, len(kept))
        ctx.save_for_backward(rows, strength, kept, *features, *weights)
        product: Tensor | None = None
        for e, factor in enumerate(_gates(features, weights)):
            factor.mul_(strength[e].unsqueeze(-1)).add_(kept[e])
            product = factor if product is None else product.mul_(factor)
        assert product is not None
        return _with_first(rows, product)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, strength, kept, *each = ctx.saved_tensors
        n = len(kept)
        features, weights = each[:n], each[n:]
        n_active = len(weights[0])
        columns = strength.unsqueeze(-1).unbind()
        gates = list(_gates(features, weights))
        factors = [(gates[e] * columns[e]).add_(kept[e]) for e in range(n)]
        by_product = rows[:, :n_active].to(kept.dtype) * grad[:, :n_active].to(kept.dtype)
        grad_strength, grad_kept = torch.empty_like(strength), torch.empty_like(kept)
        grad_features, grad_weights = [], []
        for e in range(n):
            by_factor = by_product.clone() if n == 1 else by_product
            for other in factors[:e] + factors[e + 1 :]:
                by_factor = by_factor * other if by_factor is by_product else by_factor.mul_(other)
            grad_kept[e] = by_factor.sum()
            by_factor.mul_(gates[e])
            grad_strength[e] = by_factor.sum(-1)
            # gate (1 − gate); the strength, one number a token, is multiplied where rows are short
            by_gate = by_factor.addcmul_(by_factor, gates[e], value=-1)
            grad_features.append(columns[e] * (by_gate @ weights[e][:, :-1]))
            grad_weights.append(by_gate.t() @ (columns[e] * features[e]))
        product = factors[0]
        for factor in factors[1:]:
            product.mul_(factor)
        return (
            _with_first(grad, product),
            grad_strength,
            grad_kept,
            *grad_features,
            *(by_weight[:, :-1] for by_weight in grad_weights),
            *(by_weight[:, -1] for by_weight in grad_weights),
        )


def _augmented(each: tuple[Tensor, ...], n: int) -> tuple[list[Tensor], list[Tensor]]:
    features = [torch.cat([x, x.new_ones(len(x), 1)], dim=1) for x in each[:n]]
    weights = [torch.cat([w, b.unsqueeze(1)], dim=1) for w, b in zip(each[n : 2 * n], each[2 * n :], strict=True)]
    return features, weights


def _gates(features: Sequence[Tensor], weights: Sequence[Tensor]) -> Iterator[Tensor]:
    return ((x @ w.t()).sigmoid_() for x, w in zip(features, weights, strict=True))


def _with_first(rows: Tensor, factor: Tensor) -> Tensor:
    """`rows` with their first dimensions times `factor`."""
    out, n_active = torch.empty_like(rows, memory_format=torch.contiguous_format), factor.shape[1]
    out[:, n_active:] = rows[:, n_active:]
    if rows.dtype == factor.dtype:
        torch.mul(rows[:, :n_active], factor, out=out[:, :n_active])
    else:
        out[:, :n_active] = rows[:, :n_active] * factor
    return out
