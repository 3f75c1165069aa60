"""Coherence losses: what they do not change with, and the source's beside them."""

import math

import pytest
import torch
from torch.nn import functional as F

from tests.wavegpt.arms import ARMS, V, model_of, some_ids
from wavegpt import LossConfig, Observed, wave_loss
from wavegpt.training.losses import (
    collapse_guard,
    harmonic_divergence,
    incoherence,
    norm_drift,
    random_incoherence,
    source_energy,
    source_harmonic,
    source_phase,
)  # fmt: skip

ALL = LossConfig(phase=0.1, energy=0.2, harmonic=0.3)


def observed_by(name: str = "wave") -> tuple[torch.Tensor, torch.Tensor, Observed]:
    observed, ids = Observed(), some_ids(2, 17)
    logits = model_of(ARMS[name])(ids[:, :-1], observed=observed)
    return logits, ids[:, 1:], observed


def test_the_total_is_the_weighted_sum_and_without_weights_cross_entropy() -> None:
    logits, labels, observed = observed_by()
    found = wave_loss(logits, labels, ALL, observed)
    expected = found["ce"] + 0.1 * found["phase"] + 0.2 * found["energy"] + 0.3 * found["harmonic"]
    torch.testing.assert_close(found["total"], expected)
    assert min(found[name].item() for name in ("phase", "energy", "harmonic")) > 0
    plain = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert torch.equal(wave_loss(logits, labels, LossConfig())["total"], plain)


@pytest.mark.parametrize("name", ["phase", "energy", "harmonic"])
@pytest.mark.parametrize("variant", ["circular", "source"])
def test_a_missing_input_is_an_error(name: str, variant: str) -> None:
    logits, labels, _ = observed_by()
    with pytest.raises(ValueError, match=f"loss.{name} has a weight"):
        wave_loss(logits, labels, LossConfig(variant=variant, **{name: 0.1}), Observed())


def test_phasors_of_the_embedding_serve_where_attention_has_none() -> None:
    logits, labels, observed = observed_by("rope")
    assert observed.phasors == []
    assert 0 < wave_loss(logits, labels, LossConfig(phase=1), observed)["phase"] < 1


def test_incoherence_is_circular() -> None:
    z = torch.randn(2, 3, 16, 5, dtype=torch.complex128)
    plain = incoherence(z.real, z.imag)
    turned = z * torch.polar(torch.tensor(1.0).double(), torch.tensor(2.0).double())
    torch.testing.assert_close(incoherence(turned.real, turned.imag), plain)
    order = torch.randperm(5)
    torch.testing.assert_close(incoherence(z.real[..., order], z.imag[..., order]), plain)
    angle = torch.tensor([math.pi - 0.05, -math.pi + 0.05] * 4).double()[None, :, None]
    assert incoherence(angle.cos(), angle.sin()) < 0.002  # whose linear variance is 10
    noise = torch.polar(torch.ones(1, 8000, 50), math.tau * torch.rand(1, 8000, 50))
    assert incoherence(noise.real, noise.imag) == pytest.approx(random_incoherence(8), abs=0.02)


def test_windows_that_cross_documents_do_not_count() -> None:
    z = torch.randn(1, 16, 5, dtype=torch.complex128)
    segments = torch.tensor([[0] * 6 + [1] * 10])
    torch.testing.assert_close(
        incoherence(z.real, z.imag, 4, 4, segments),
        incoherence(*(torch.cat([part[:, :4], part[:, 8:]], dim=1) for part in (z.real, z.imag)), 4),
    )
    with pytest.raises(ValueError, match="longer than"):
        incoherence(z.real, z.imag, 17)


def test_the_gradient_is_finite_at_zero() -> None:
    real, imaginary = (torch.zeros(1, 8, 2, requires_grad=True) for _ in "ri")
    incoherence(real, imaginary).backward()
    assert bool(real.grad.isfinite().all())
    assert bool(imaginary.grad.isfinite().all())


def test_drift_does_not_depend_on_scale_and_the_source_energy_does() -> None:
    states = list(torch.randn(4, 2, 6, 8, dtype=torch.float64))
    larger = [10 * state for state in states]
    torch.testing.assert_close(norm_drift(larger), norm_drift(states))
    torch.testing.assert_close(source_energy(larger), 10 * source_energy(states))


def test_harmonics_are_kept_if_and_only_if_they_fall_as_1_over_n() -> None:
    n = torch.arange(1, 6).double()
    assert harmonic_divergence(7 / n).item() == pytest.approx(0, abs=1e-15)
    assert harmonic_divergence(1 / n**1.01) > 1e-6
    assert source_harmonic(7 / n).item() == pytest.approx(0, abs=1e-8)


def test_the_source_phase_term_depends_on_the_order_of_hidden_units() -> None:
    """Which has no meaning: the network is the same function."""
    state = torch.randn(2, 64, 32, dtype=torch.float64).cumsum(1)
    order = torch.randperm(32)
    assert abs(source_phase(state, 8) - source_phase(state[..., order], 8)) > 1e-3
    assert source_phase(torch.ones(1, 8, 8, dtype=torch.float64), 8).item() == pytest.approx(0, abs=1e-12)


def test_the_guard_sees_a_collapse() -> None:
    spread = collapse_guard(torch.randn(4, 64, 8, dtype=torch.float64))
    assert spread["effective_rank"] > 7
    assert abs(spread["neighbour_cosine"]) < 0.1
    line = collapse_guard(torch.randn(4, 64, 1, dtype=torch.float64) * torch.ones(8))
    assert line["effective_rank"].item() == pytest.approx(1, abs=1e-6)


def test_ignored_labels_do_not_count() -> None:
    logits, labels = torch.randn(1, 4, V), torch.tensor([[1, -100, 2, -100]])
    expected = F.cross_entropy(logits[0, [0, 2]], labels[0, [0, 2]])
    torch.testing.assert_close(wave_loss(logits, labels, LossConfig())["ce"], expected)
