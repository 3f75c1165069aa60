"""Spectra along tokens: SciPy as an oracle, closed forms, and what surrogates keep."""

import math

import numpy as np
import pytest
import torch
from scipy import signal

from modulant.geometry import (
    analytic_signal,
    detrended,
    frequencies_of,
    lag_one,
    multitaper_spectrum,
    pairwise_phase_consistency,
    permuted_power,
    phase_randomised,
    shuffled_lag_one,
    sine_tapers,
    spectral_concentration,
    spectrum_shape,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def autoregressive(n: int, a: float, columns: int) -> torch.Tensor:
    steps = noise(n + 100, columns)
    for t in range(1, len(steps)):
        steps[t] += a * steps[t - 1]
    return steps[100:]


def test_tapers_are_orthonormal_and_theirs_is_a_sum_over_columns() -> None:
    tapers = sine_tapers(61, 5)
    torch.testing.assert_close(tapers @ tapers.mT, torch.eye(5, dtype=torch.float64), atol=1e-14, rtol=0)
    x = noise(61, 3)
    by_hand = np.zeros(30)
    for taper in sine_tapers(61).numpy():
        by_hand += (np.abs(np.fft.rfft(taper[:, None] * x.numpy(), axis=0)[1:]) ** 2).sum(1) / 4
    np.testing.assert_allclose(multitaper_spectrum(x), by_hand, rtol=1e-12)
    with pytest.raises(ValueError, match="5 tapers of 4 tokens"):
        sine_tapers(4, 5)


def test_a_longer_grid_has_the_same_spectrum_at_more_frequencies() -> None:
    x = noise(60, 2)
    torch.testing.assert_close(multitaper_spectrum(x, 120)[1::2], multitaper_spectrum(x, 60))
    torch.testing.assert_close(frequencies_of(120)[1::2], frequencies_of(60))
    with pytest.raises(ValueError, match="a grid of 59 for 60 tokens"):
        multitaper_spectrum(x, 59)


def test_a_rotation_of_the_columns_changes_nothing() -> None:
    x = autoregressive(90, 0.7, 5)
    turned = x @ torch.linalg.qr(noise(5, 5, seed=2)).Q
    torch.testing.assert_close(multitaper_spectrum(turned), multitaper_spectrum(x))
    torch.testing.assert_close(lag_one(turned), lag_one(x))


def test_the_spectrum_of_an_autoregression() -> None:
    """S(f) = 1 / |1 − a e^{−2πif}|², and lag-1 a."""
    x = detrended(autoregressive(4000, 0.6, 40))
    f = frequencies_of(4000)
    theory = 1 / (1 - 0.6 * torch.exp(-2j * torch.pi * f)).abs().square()
    found = multitaper_spectrum(x) / 40
    assert float((found / theory).mean()) == pytest.approx(1, abs=0.01)
    assert float((found / theory).std()) == pytest.approx(1 / math.sqrt(4 * 40), rel=0.1)
    assert float(lag_one(x)) == pytest.approx(0.6, abs=0.01)
    both = torch.stack(spectrum_shape(f, torch.stack([theory, found, torch.ones_like(f)])))
    torch.testing.assert_close(both[:, 1], both[:, 0], rtol=0.02, atol=0)
    assert both[:, 2].tolist() == pytest.approx([0.25, 1, 0, 0.1], abs=1e-3)


def test_detrending_is_scipys() -> None:
    x = noise(2, 40, 3) + torch.arange(40.0)[:, None]
    np.testing.assert_allclose(detrended(x), signal.detrend(x.numpy(), axis=1), atol=1e-12)
    assert torch.equal(detrended(torch.ones(1, 2)), torch.zeros(1, 2))


def test_rows_in_random_order() -> None:
    x = autoregressive(50, 0.8, 4)
    x -= x.mean(0)
    found = shuffled_lag_one(x, 4000, generator())
    assert float(found.mean()) == pytest.approx(-1 / 50, abs=4 * float(found.std()) / math.sqrt(4000))
    order = torch.rand(1, 50, generator=generator()).argsort(1)[0]
    torch.testing.assert_close(found[0], lag_one(x[order]))


@pytest.mark.parametrize("n", [64, 65])
def test_surrogates_keep_every_second_moment(n: int) -> None:
    x = autoregressive(n, 0.5, 6)
    surrogate = phase_randomised(x, generator())
    scale = float((x.mT @ x).abs().max())
    for lag in (0, 1, 7):
        before, after = (y.mT @ y.roll(lag, 0) for y in (x, surrogate))
        assert float((before - after).abs().max()) / scale < 3e-15, lag
    assert float((x - surrogate).abs().max()) > 1
    torch.testing.assert_close(x.mean(0), surrogate.mean(0))
    both = phase_randomised(torch.stack([x, x]), generator())
    assert float((both[0] - both[1]).abs().max()) > 1  # other phases in each of a batch


@pytest.mark.parametrize("n", [40, 41])
def test_the_analytic_signal_is_scipys(n: int) -> None:
    x = noise(3, n)
    np.testing.assert_allclose(analytic_signal(x), signal.hilbert(x.numpy()), atol=1e-12)


def test_a_band_keeps_its_frequencies_alone() -> None:
    t = torch.arange(200, dtype=torch.float64)
    slow, fast = (torch.cos(2 * torch.pi * f * t + 1) for f in (0.05, 0.3))
    found = analytic_signal(slow + 3 * fast, (0.25, 0.5))
    torch.testing.assert_close(found, 3 * torch.exp(1j * (2 * torch.pi * 0.3 * t + 1)))
    assert float(analytic_signal(slow, (0.25, 0.5)).abs().max()) < 1e-12


def test_consistency_of_phases() -> None:
    t = torch.arange(100, dtype=torch.float64)
    locked = torch.stack([torch.exp(1j * (0.3 * t + shift)) for shift in (0.0, 1.0, 4.0)])
    assert float(pairwise_phase_consistency(locked)) == pytest.approx(1)
    assert float(pairwise_phase_consistency(-locked * 7)) == pytest.approx(1)
    # Every difference equally often: |Σ|² = 0.
    apart = torch.stack([torch.ones(100, dtype=torch.complex128), torch.exp(2j * torch.pi * t / 100)])
    assert float(pairwise_phase_consistency(apart)) == pytest.approx(-1 / 99)
    random = torch.polar(torch.ones(500, 2, 20, dtype=torch.float64), 2 * torch.pi * torch.rand(500, 2, 20).double())
    values = pairwise_phase_consistency(random)
    assert float(values.mean()) == pytest.approx(0, abs=4 * float(values.std()) / math.sqrt(500))
    assert math.isnan(pairwise_phase_consistency(locked[:1]))


def test_power_over_permuted_entries_is_flat() -> None:
    """Also of a ramp, whose own spectrum is steep: every |X_k|² has the mean that the variance alone gives."""
    x = torch.arange(64, dtype=torch.float64) + 5
    assert float(permuted_power(x)) == pytest.approx(64**2 * float(x.var(correction=0)) / 63)
    orders = torch.rand(4000, 64, generator=generator()).argsort(1)
    power = torch.fft.rfft(x[orders]).abs().square().mean(0)[1:]
    assert (power / permuted_power(x)).numpy() == pytest.approx(np.ones(32), abs=0.1)
    own = torch.fft.rfft(x).abs().square()[1:]
    assert float(own[0] / own[-1]) > 100


def test_concentration() -> None:
    gaussian = spectral_concentration(noise(4000, 576))
    assert float(gaussian.mean()) == pytest.approx((1 - np.euler_gamma) / math.log(287), abs=5e-4)
    wave = torch.cos(2 * torch.pi * 5 * torch.arange(64, dtype=torch.float64) / 64)
    assert float(spectral_concentration(wave)) == pytest.approx(1, abs=1e-9)
    impulse = torch.zeros(64, dtype=torch.float64)
    impulse[9] = 3  # one huge entry has the flattest spectrum
    assert float(spectral_concentration(impulse)) == pytest.approx(0, abs=1e-9)
