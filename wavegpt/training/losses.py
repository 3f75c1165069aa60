r"""Cross-entropy with coherence terms on phasors, norms and harmonic amplitudes; and the source's formulas.

The circular terms see what has a phase: phasors along positions. The source's phase term takes a Fourier transform over
hidden units, which have no order; it is here for study.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from wavegpt.config import LossConfig
from wavegpt.observed import Observed

IGNORED = -100
_TINY = 1e-8


def wave_loss(
    logits: Float[Tensor, "B T V"],
    labels: Int[Tensor, "B T"],
    config: LossConfig,
    observed: Observed | None = None,
    segments: Int[Tensor, "B T"] | None = None,
) -> dict[str, Tensor]:
    """total = ce + λ_phase phase + λ_energy energy + λ_harmonic harmonic, nats a token; a term of weight 0 is left out.

    Args:
        logits: of the next token.
        labels: the next token; −100 where there is none to predict.
        config: weights and variant.
        observed: of the forward pass.
        segments: as the model got them; a window that crosses two does not count.

    Raises:
        ValueError: a term has a weight and its input is missing.
    """
    ce = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    found = {"total": ce, "ce": ce}
    observed = observed or Observed()
    source = config.variant == "source"
    if config.phase:
        if source:
            terms = [source_phase(state, config.window) for state in _needed(observed.states[1:], "phase", "states")]
        else:
            waves = observed.phasors or observed.waves
            terms = [
                incoherence(real, imaginary, config.window, config.stride, segments)
                for real, imaginary in _needed(waves, "phase", "phasors")
            ]
        found["phase"] = torch.stack(terms).mean()
    if config.energy:
        states = _needed(observed.states, "energy", "states")
        found["energy"] = source_energy(states[1:]) if source else norm_drift(states)
    if config.harmonic:
        if observed.harmonics is None:
            raise ValueError("loss.harmonic has a weight, but no learned harmonic amplitudes were observed")
        harmonic = source_harmonic if source else harmonic_divergence
        found["harmonic"] = harmonic(observed.harmonics)
    for name in ("phase", "energy", "harmonic"):
        if name in found:
            found["total"] = found["total"] + getattr(config, name) * found[name]
    return found


def _needed(values: list, name: str, what: str) -> list:  # type: ignore[type-arg]
    if not values:
        raise ValueError(
            f"loss.{name} has a weight, but no {what} were observed; call the model with observed=Observed()"
        )
    return values


def incoherence(
    real: Float[Tensor, "B *heads T W"],
    imaginary: Float[Tensor, "B *heads T W"],
    window: int = 8,
    stride: int | None = None,
    segments: Int[Tensor, "B T"] | None = None,
) -> Float[Tensor, ""]:
    r"""C = 1 − |Σ z_t| / Σ |z_t| over windows of tokens, the mean; 0 in phase, ≈ 1 − √(π / (4·window)) at random.

    Circular and weighted by amplitude: unchanged by 2π, by a global phase and by the order of waves. The gradient is
    finite at z = 0.

    Raises:
        ValueError: fewer tokens than a window has.
    """
    T = real.shape[-2]
    if window > T:
        raise ValueError(f"loss.window is {window}, longer than the {T} tokens of a row")
    stride = stride or window
    size = (real.square() + imaginary.square() + _TINY**2).sqrt()
    sums = [part.unfold(-2, window, stride).sum(-1) for part in (real, imaginary, size)]
    length = (sums[0].square() + sums[1].square() + _TINY**2).sqrt()
    values = 1 - length / (sums[2] + _TINY)
    if segments is None:
        return values.mean()
    inside = segments.unfold(-1, window, stride)
    whole = (inside == inside[..., :1]).all(-1)[(..., None)]  # (B, windows, 1)
    whole = whole.view(len(whole), *(1 for _ in values.shape[1:-2]), *whole.shape[1:]).expand_as(values)
    return (values * whole).sum() / whole.sum().clamp_min(1)


def norm_drift(states: Sequence[Float[Tensor, "B T d"]]) -> Float[Tensor, ""]:
    """Mean of (ln ‖x_l‖ − ln ‖x_{l−1}‖)²: unchanged by scaling all layers."""
    logs = torch.stack([state.norm(dim=-1).clamp_min(_TINY).log() for state in states])
    return logs.diff(dim=0).square().mean()


def harmonic_divergence(amplitudes: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """KL(â ‖ 1/n), nats, of amplitudes normed to sum 1: 0 if and only if they are proportional to 1/n.

    >>> f"{harmonic_divergence(torch.tensor([3.0, 1.5, 1.0])):.4f} {harmonic_divergence(torch.ones(3)):.4f}"
    '0.0000 0.1048'
    """
    expected = 1 / torch.arange(1, len(amplitudes) + 1, device=amplitudes.device, dtype=amplitudes.dtype)
    actual = amplitudes.abs() / amplitudes.abs().sum()
    return (actual * (actual.clamp_min(_TINY) / (expected / expected.sum())).log()).sum().clamp_min(0)


def source_phase(state: Float[Tensor, "B T d"], window: int) -> Float[Tensor, ""]:
    """The source's: variance over windows of tokens of the angles of a Fourier transform over hidden units."""
    angle = torch.fft.rfft(state, dim=-1).angle()
    return angle.unfold(1, window, window).var(dim=-1).mean()


def source_energy(states: Sequence[Float[Tensor, "B T d"]]) -> Float[Tensor, ""]:
    """The source's: mean of |‖x_l‖ − ‖x_{l−1}‖|; it grows with the states."""
    return torch.stack([state.norm(dim=-1) for state in states]).diff(dim=0).abs().mean()


def source_harmonic(amplitudes: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """The source's: mean of |â − (1/n) / Σ(1/n)|."""
    expected = 1 / torch.arange(1, amplitudes.shape[-1] + 1, device=amplitudes.device, dtype=amplitudes.dtype)
    return (amplitudes.abs() / (amplitudes.abs().sum() + _TINY) - expected / expected.sum()).abs().mean()


@torch.no_grad()
def collapse_guard(state: Float[Tensor, "B T d"]) -> dict[str, Tensor]:
    """What coherence may buy by collapse: the effective rank e^H of the states, and neighbours' mean cosine.

    H is the entropy of the eigenvalue shares of the states' covariance.
    """
    rows = state.flatten(0, 1).to(torch.promote_types(state.dtype, torch.float32))
    variances = torch.linalg.eigvalsh((rows - rows.mean(0)).T @ (rows - rows.mean(0))).clamp_min(0)
    shares = variances / variances.sum().clamp_min(_TINY)
    entropy = -torch.special.xlogy(shares, shares).sum()
    cosine = F.cosine_similarity(state[:, 1:], state[:, :-1], dim=-1).mean()
    return {"effective_rank": entropy.exp(), "neighbour_cosine": cosine}


def random_incoherence(window: int) -> float:
    """1 − √(π / (4·window)): about what `incoherence` is for random phases of equal amplitude."""
    return 1 - math.sqrt(math.pi / (4 * window))
