r"""What of a model is in use: frequencies and packets of tokens, phases, and the parts of attention's logits."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wavegpt.diagnostics.scores import Scores
from wavegpt.embedding import WaveEmbedding, frequencies


class Rayleigh(NamedTuple):
    """Rayleigh's test of angles.

    Attributes:
        length: R̄ = |mean e^{iφ}|, 0 (spread out) … 1 (all alike).
        p: of as large an R̄ if the angles were uniform and independent.
    """

    length: float
    p: float


def rayleigh(angles: Float[Tensor, " n"]) -> Rayleigh:
    """Are angles uniform on the circle? p by exp(√(1 + 4n + 4(n² − n²R̄²)) − 1 − 2n), good from n = 10 (Zar).

    >>> rayleigh(torch.zeros(20)).length
    1.0
    """
    n = len(angles)
    angles = angles.double()
    length = min(float(torch.hypot(angles.cos().mean(), angles.sin().mean())), 1.0)
    exponent = math.sqrt(1 + 4 * n + 4 * n * n * (1 - length * length)) - 1 - 2 * n
    return Rayleigh(length, min(math.exp(exponent), 1.0))


@torch.no_grad()
def omegas(embedding: WaveEmbedding) -> tuple[Float[Tensor, " V"], Float[Tensor, " V"]]:
    """ω̂ of each token as it is, and as it was before training, in fp64; the same where it is not learned."""
    about = embedding.about
    ranks = embedding.ranks.cpu()
    if about.mass != "learned":
        fixed = frequencies(ranks, about.omega_range, about.mass)
        return fixed, fixed
    return embedding.log_omega.detach().double().cpu().exp(), frequencies(ranks, about.omega_range)


@torch.no_grad()
def packets(
    embedding: WaveEmbedding, ids: Int[Tensor, " k"], times: Float[Tensor, "*rows points"]
) -> Float[Tensor, "k points"]:
    r"""(1/W) Σ_w s_w Σ_n a_n cos(n (ω̂ τ + φ_w)) of tokens at times τ, in fp64: the waves that the model sees at τ_w.

    Args:
        embedding: waves.
        ids: tokens.
        times: τ, the same for all tokens or a row each.
    """
    about = embedding.about
    omega = omegas(embedding)[0][ids.cpu()]
    n = torch.arange(1, about.harmonics + 1, dtype=torch.float64)[:, None, None]
    learned = embedding.harmonic_amplitudes
    decay = 1 / n if learned is None else learned.detach().double().cpu()[:, None, None]
    phase = embedding.phase.detach().double().cpu()[ids.cpu()]
    scale = embedding._scale(ids).detach().double().cpu().expand_as(phase)
    found = []
    for i, row in enumerate(times.double().expand(len(ids), -1)):
        turn = omega[i] * row[:, None]  # (points, 1)
        angle = n * (turn + phase[i]) if about.harmonic_phase == "multiplied" else n * turn + phase[i]
        found.append((decay * scale[i] * angle.cos()).sum(0).mean(-1))
    return torch.stack(found)


def grid(duration: float, fastest: float) -> Float[Tensor, " points"]:
    """Times from 0, at twice the rate that Nyquist's limit asks for of waves up to the frequency `fastest`, rad.

    >>> len(grid(math.tau, 4.0))
    17
    """
    return torch.linspace(0, duration, math.ceil(2 * duration * fastest / math.pi) + 1, dtype=torch.float64)


def variance_shares(
    scores: Scores, allowed: Bool[Tensor, "Q K"]
) -> tuple[Float[Tensor, " H"], Float[Tensor, " H"], Float[Tensor, " H"]]:
    """Covariance of the cross term with the logits, and of the key's part, over the keys that a query sees; and their
    variance: sums over texts and queries. The first two over the third are shares that sum to 1.
    """
    seen = allowed.to(scores.cross.dtype)
    count = seen.sum(-1, keepdim=True)

    def centred(part: Tensor) -> Tensor:
        part = part.expand_as(scores.cross)
        return (part - (part * seen).sum(-1, keepdim=True) / count) * seen

    cross, key = centred(scores.cross), centred(scores.key)
    logits = cross + key
    each = [(part * logits / count).double().sum((0, 2, 3)) for part in (cross, key, logits)]
    return each[0], each[1], each[2]
