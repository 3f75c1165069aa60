"""Harmonics and fringes: false positives at their rate, planted waves found."""

import math

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from wavegpt.diagnostics.fringes import fringe_test, lag_profile
from wavegpt.diagnostics.harmonics import harmonic_sums, harmonic_test, periodogram

ALPHA, DRAWS = 0.05, 200
FEW, MANY = binom.interval(0.999, DRAWS, ALPHA)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def red(noise: Tensor, memory: float) -> Tensor:
    """x_t = memory x_{t−1} + e_t."""
    series = noise.clone()
    for t in range(1, noise.shape[-2]):
        series[..., t, :] += memory * series[..., t - 1, :]
    return series


@pytest.mark.parametrize(("samples", "columns"), [(64, 1), (64, 16), (256, 3)])
def test_noise_has_harmonics_as_often_as_alpha_says(samples: int, columns: int) -> None:
    noise = torch.randn(DRAWS, samples, columns, generator=generator(1), dtype=torch.float64)
    found = [harmonic_test(one, generator(i), draws=199).p <= ALPHA for i, one in enumerate(noise)]
    assert FEW <= sum(found) <= MANY


def test_a_smooth_spectrum_is_no_series_of_harmonics() -> None:
    noise = red(torch.randn(DRAWS, 128, 4, generator=generator(2), dtype=torch.float64), 0.7)
    found = [harmonic_test(one, generator(i), draws=199).p <= ALPHA for i, one in enumerate(noise)]
    assert sum(found) <= MANY


def wave(frequencies: list[float], samples: int, seed: int, texts: int = 4) -> Tensor:
    """Waves of random phase under noise of the same power in each of some texts."""
    t = torch.arange(samples, dtype=torch.float64)
    series = torch.randn(texts, samples, 2, generator=generator(seed), dtype=torch.float64)
    for f in frequencies:
        phase = torch.rand(texts, 1, 1, generator=generator(seed + 1), dtype=torch.float64)
        series = series + torch.cos(math.tau * (f * t[:, None] + phase))
    return series


@pytest.mark.parametrize("fundamental", [0.0625, 0.075, 0.11])
def test_planted_harmonics_are_found(fundamental: float) -> None:
    found = harmonic_test(wave([n * fundamental for n in (1, 2, 3)], 128, 3), generator())
    assert found.p <= 0.01
    assert found.frequency == pytest.approx(fundamental, abs=1 / 128)


def test_lines_in_no_relation_are_not() -> None:
    """One strong line, or three, are in each surrogate too."""
    found = [harmonic_test(wave(lines, 128, seed), generator(seed)).p
             for seed in range(20) for lines in ([0.1], [0.07, 0.19, 0.33])]  # fmt: skip
    assert sum(p <= ALPHA for p in found) <= binom.ppf(0.999, 40, ALPHA)


def test_the_periodogram_is_that_of_numpy() -> None:
    series = torch.randn(65, generator=generator(), dtype=torch.float64)
    line = torch.arange(65.0, dtype=torch.float64)
    fit = torch.linalg.lstsq(torch.stack([torch.ones_like(line), line], 1), series[:, None]).solution
    rest = series - (fit[0] + fit[1] * line)
    power = torch.fft.fft(rest).abs().square()[1:33]
    torch.testing.assert_close(periodogram(series[:, None]), power / power.mean())


def test_harmonics_beside_the_multiples_count() -> None:
    power = torch.zeros(30)
    power[[4, 10, 16]] = 1  # frequencies 5, 11 = 2·5 + 1 and 17, which is beyond 3·5 + 1
    assert harmonic_sums(power)[2] == 2


def test_a_short_series_is_refused() -> None:
    with pytest.raises(ValueError, match="18 samples; 3 harmonics"):
        harmonic_test(torch.zeros(18, 1), generator())


def test_what_does_not_vary_has_no_p() -> None:
    line = torch.arange(40, dtype=torch.float64)[:, None] / 7 + torch.tensor([0.1, 3.0])  # rounding is left of it
    assert math.isnan(harmonic_test(line, generator()).p)
    noise = torch.randn(40, 2, generator=generator(), dtype=torch.float64)
    both = harmonic_test(torch.stack([line, noise]), generator())
    assert both.p == harmonic_test(noise, generator()).p


def profile(period: float | None, seed: int, heads: int = 1, lags: int = 64) -> Tensor:
    lag = torch.arange(1, lags + 1, dtype=torch.float64)
    found = 0.2 * lag**-0.8 + 0.002 * torch.randn(heads, lags, generator=generator(seed), dtype=torch.float64)
    return found if period is None else found + 0.003 * torch.cos(math.tau * lag / period)


def test_noise_has_fringes_as_often_as_alpha_says() -> None:
    found = fringe_test(profile(None, 5, heads=DRAWS), generator(), draws=199)
    assert FEW <= int((found.p <= ALPHA).sum()) <= MANY


@pytest.mark.parametrize("period", [4.0, 8.0, 12.5])
def test_a_planted_lag_period_is_found(period: float) -> None:
    found = fringe_test(profile(period, 6), generator())
    assert float(found.p) <= 0.01
    assert 64 / float(found.period) == pytest.approx(64 / period, abs=0.6)


def test_a_smooth_profile_has_none() -> None:
    lag = torch.arange(1, 33, dtype=torch.float64)
    assert float(fringe_test((1 - 0.2 * lag.log())[None], generator()).p) == 1
    with pytest.raises(ValueError, match="11 lags"):
        fringe_test(torch.zeros(1, 11), generator())


def test_a_profile_is_a_mean_over_queries_and_texts() -> None:
    weights = torch.rand(2, 3, 6, 6, generator=generator())
    found = lag_profile(weights)
    assert found.shape == (3, 3)
    for lag in (1, 2, 3):
        torch.testing.assert_close(
            found[:, lag - 1], weights[:, :, [3, 4, 5], [3 - lag, 4 - lag, 5 - lag]].mean((0, 2))
        )
