"""Phasors as features, [A cos θ ‖ A sin θ ‖ last ‖ 0 …], with a gradient in fewer passes than autograd takes."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable


def packed(
    amplitude: Float[Tensor, "*batch W"], phase: Float[Tensor, "*batch W"], last: Tensor | None = None, zeros: int = 0
) -> Float[Tensor, "*batch F"]:
    """[A cos θ ‖ A sin θ ‖ last ‖ 0 …].

    Args:
        amplitude: A.
        phase: θ.
        last: one more feature, (…, 1).
        zeros: features that are 0 and change no product.

    >>> packed(torch.ones(1), torch.zeros(1), torch.tensor([5.0]), zeros=1)
    tensor([1., 0., 5., 0.])
    """
    if _plain_autograd():
        return _plain(amplitude, phase, last, zeros)
    if torch.is_grad_enabled():
        return _Packed.apply(amplitude, phase, last, zeros)  # type: ignore[no-untyped-call]
    return _written(amplitude, phase.cos(), phase.sin(), last, zeros)


def _plain(amplitude: Tensor, phase: Tensor, last: Tensor | None, zeros: int) -> Tensor:
    parts = [amplitude * phase.cos(), amplitude * phase.sin()]
    if last is not None:
        parts.append(last.expand_as(amplitude[..., :1]))
    if zeros:
        parts.append(amplitude.new_zeros(()).expand(*amplitude.shape[:-1], zeros))
    return torch.cat(parts, dim=-1)


def _written(amplitude: Tensor, cos: Tensor, sin: Tensor, last: Tensor | None, zeros: int) -> Tensor:
    """The features, each written once."""
    W = amplitude.shape[-1]
    width = 2 * W + (last is not None)
    out = amplitude.new_empty(*amplitude.shape[:-1], width + zeros)
    torch.mul(amplitude, cos, out=out[..., :W])
    torch.mul(amplitude, sin, out=out[..., W : 2 * W])
    if last is not None:
        out[..., 2 * W : width] = last
    if zeros:
        out[..., width:] = 0
    return out


def _plain_autograd() -> bool:
    """Whether torch.compile, torch.func or forward mode traces or transforms the formula."""
    return bool(
        torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )


class _Packed(torch.autograd.Function):
    """∂A = g_c cos θ + g_s sin θ, ∂θ = A (g_s cos θ − g_c sin θ)."""

    @staticmethod
    def forward(ctx: Any, amplitude: Tensor, phase: Tensor, last: Tensor | None, zeros: int) -> Tensor:
        cos, sin = phase.cos(), phase.sin()
        ctx.save_for_backward(amplitude, cos, sin)
        ctx.last = None if last is None else last.shape
        return _written(amplitude, cos, sin, last, zeros)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        amplitude, cos, sin = ctx.saved_tensors
        W = amplitude.shape[-1]
        along_cos, along_sin = gradient[..., :W], gradient[..., W : 2 * W]
        by_amplitude = by_phase = by_last = None
        if ctx.needs_input_grad[0]:
            by_amplitude = torch.mul(along_cos, cos).addcmul_(along_sin, sin)
        if ctx.needs_input_grad[1]:
            by_phase = torch.mul(along_sin, cos).addcmul_(along_cos, sin, value=-1).mul_(amplitude)
        if ctx.last is not None and ctx.needs_input_grad[2]:
            by_last = gradient[..., 2 * W : 2 * W + 1].sum_to_size(ctx.last)
        return by_amplitude, by_phase, by_last, None
