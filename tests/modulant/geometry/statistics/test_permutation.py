"""Mantel's test: against SciPy's correlation, its p under the null, and what a third matrix takes away."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from modulant.geometry import mantel


def distances(values: torch.Tensor) -> torch.Tensor:
    return (values[:, None] - values).abs()


def noise(n: int, seed: int) -> torch.Tensor:
    values = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
    return values + values.mT


def test_r_is_pearsons_and_partial_r_is_that_of_residuals() -> None:
    x, y, z = (noise(9, seed) for seed in range(3))
    i, j = np.triu_indices(9, 1)
    a, b, c = (matrix.double().numpy()[i, j] for matrix in (x + z, y + z, z))
    assert mantel(x + z, y + z, 9).r == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)
    residuals = [v - np.polyval(np.polyfit(c, v, 1), c) for v in (a, b)]
    assert mantel(x + z, y + z, 9, given=z).r == pytest.approx(stats.pearsonr(*residuals).statistic, abs=1e-12)


def test_p_counts_the_permutations_that_do_as_well() -> None:
    # Of four points on a line, 2 of the 24 orders (itself and its mirror) give the same distances.
    line = distances(torch.arange(4.0))
    found = mantel(line, line, 20_000)
    assert found.r == pytest.approx(1)
    assert found.p == pytest.approx(2 / 24, abs=0.01)


def test_p_is_uniform_under_the_null() -> None:
    values = [mantel(distances(torch.arange(8.0)), noise(8, seed), 199, seed).p for seed in range(200)]
    assert stats.kstest(values, "uniform").pvalue > 0.01
    assert np.mean(np.array(values) <= 0.05) < 0.1


def test_the_null_is_that_of_all_permutations() -> None:
    x, y = distances(torch.arange(5.0)), noise(5, 4)
    orders = [torch.tensor(order) for order in itertools.permutations(range(5))]
    every = np.array([mantel(x[order][:, order], y, 1).r for order in orders])
    found = mantel(x, y, 20_000)
    assert found.null_sd == pytest.approx(every.std(), rel=0.02)
    assert found.p == pytest.approx((np.abs(every) >= abs(found.r) - 1e-9).mean(), abs=0.015)


def test_what_explains_all_leaves_nothing() -> None:
    x, z = distances(torch.arange(10.0)), noise(10, 1)
    assert abs(mantel(x, -x + 0.01 * z, 99).r) > 0.99
    assert mantel(x + z, z, 999, given=z).r != mantel(x + z, z, 999, given=z).r  # NaN: nothing is left of y


def test_what_does_not_vary_and_what_does_not_fit() -> None:
    assert math.isnan(mantel(torch.ones(5, 5), noise(5, 0), 9).r)
    with pytest.raises(ValueError, match="got 2 and 2 items"):
        mantel(torch.ones(2, 2), torch.ones(2, 2))
