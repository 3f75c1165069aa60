r"""Phases of tokens in attention: a ladder of frequencies, and the running sum of frequencies that depend on tokens."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ladder(waves: int, base: float) -> Float[Tensor, " W"]:
    """Ω_w = base^(−w/W) in fp64, RoPE's frequencies, rad a token.

    >>> ladder(2, 10_000.0)
    tensor([1.0000, 0.0100], dtype=torch.float64)
    """
    return base ** (-torch.arange(waves, dtype=torch.float64, device="cpu") / waves)


def turned(positions: Tensor, omega: Tensor, dtype: torch.dtype) -> Tensor:
    """Ω t modulo 2π, (…, T, W), from fp64: a 16-bit or long position would lose the angle."""
    return (positions[..., None].to(omega.dtype) * omega).remainder(math.tau).to(dtype)


def running_phase(
    omega: Float[Tensor, "B H T W"], before: Tensor | None = None, starts: Int[Tensor, "B T"] | None = None
) -> Float[Tensor, "B H T W"]:
    """Σ_{s ≤ t} ω(x_s) modulo 2π, summed in fp64.

    Args:
        omega: ω(x_s).
        before: an earlier sum to add to, (B, H, 1, W).
        starts: index of the first token of each token's segment, where the sum starts anew.
    """
    total = omega.double().cumsum(-2)
    if before is not None:
        total = total + before.double()
    elif starts is not None:
        index = starts[:, None, :, None].expand_as(total)
        total = total - (total - omega.double()).gather(-2, index)
    return total.remainder(math.tau).to(omega.dtype)


def rotate(x: Float[Tensor, "B H T h"], cos: Tensor, sin: Tensor) -> Float[Tensor, "B H T h"]:
    """RoPE: the pairs (x_w, x_{w + h/2}) turned by an angle."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)
