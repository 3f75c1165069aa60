"""Bootstraps and the test of many figures against what is known of them."""

import math

import pytest
import torch
from scipy import stats

from modulant.geometry import association, bootstrap_counts, middle, resampled_means, resampled_pearson


def noise(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_mean_has_its_standard_error() -> None:
    values = noise(400, 3) + 2
    counts = bootstrap_counts(400, 4000)
    assert torch.equal(counts.sum(1), torch.full((4000,), 400.0).double())
    means = resampled_means(values, counts)
    torch.testing.assert_close(means.mean(0), values.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(means.std(0), values.std(0) / 20, atol=0.003, rtol=0)
    low, high = middle(means)
    torch.testing.assert_close(high - low, 2 * 1.96 * values.std(0) / 20, atol=0.02, rtol=0)


def test_what_is_unknown_is_left_out_of_a_mean() -> None:
    values = torch.tensor([[1.0], [math.nan], [1.0]])
    means = resampled_means(values, bootstrap_counts(3, 200))
    assert ((means == 1) | means.isnan()).all()  # NaN where only the unknown was drawn
    assert (means == 1).any()


def test_a_correlation_in_replicates_is_that_of_the_drawn_items() -> None:
    x, y = noise(2, 30), noise(30, seed=1)
    counts = bootstrap_counts(30, 5)
    found = resampled_pearson(x, y, counts)
    for row, weights in zip(found, counts.long(), strict=True):
        for r, values in zip(row, x, strict=True):
            assert float(r) == pytest.approx(
                stats.pearsonr(values.repeat_interleave(weights), y.repeat_interleave(weights))[0]
            )
    assert resampled_pearson(torch.ones(1, 30).double(), y, counts).isnan().all()


def test_an_association_is_scipys_and_its_p_is_fair() -> None:
    n = 60
    given = torch.arange(n).double()
    groups = torch.zeros(n, dtype=torch.long)
    target = noise(n) + 0.05 * given
    figures = torch.stack([target + noise(n, seed=1), noise(n, seed=2), torch.ones(n).double()])
    found = association(figures, target, given, groups)
    assert float(found.r[0]) == pytest.approx(stats.pearsonr(figures[0], target)[0])

    def residual(values: torch.Tensor) -> torch.Tensor:
        fit = stats.linregress(given, values)
        return values - fit.slope * given - fit.intercept

    expected, p = stats.pearsonr(residual(figures[1]), residual(target))
    assert float(found.partial_r[1]) == pytest.approx(expected)
    assert float(found.p[1]) == pytest.approx(p, abs=0.03)
    assert found.p[0] == 1 / 5000
    assert found.r[2].isnan()
    assert found.p_family[2].isnan()
    assert (found.p_family >= found.p)[:2].all()


def test_the_largest_of_many_figures_is_no_finding() -> None:
    """Of 210 figures of noise over 15 items the largest |r| is about 0.7, as it is in 5% of permutations."""
    n, groups = 15, torch.zeros(15, dtype=torch.long)
    given = torch.ones(n).double()  # does not vary: nothing to take away
    firm = [association(noise(210, n, seed=seed), noise(n, seed=seed + 100), given, groups, 499) for seed in range(40)]
    assert sum(float(found.p_family.min()) <= 0.05 for found in firm) <= 6
    assert sum(float(found.p.min()) <= 0.05 for found in firm) >= 35
    assert 0.7 < firm[0].threshold < 0.85


def test_what_a_nuisance_explains_is_in_the_null_even_if_it_is_not_linear() -> None:
    given = torch.arange(12).repeat_interleave(10).double()
    curve = (given - 5.5).square()
    figures, target = (curve + 2 * noise(120, seed=5))[None], curve + 2 * noise(120, seed=6)
    within = association(figures, target, given, given.long())
    anywhere = association(figures, target, given, torch.zeros(120, dtype=torch.long))
    assert anywhere.p < 0.001
    assert within.p > 0.05
