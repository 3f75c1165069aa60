"""Spearman's ρ against SciPy, the bootstrap against a loop over replicates."""

import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ConstantInputWarning, spearmanr

from modulant.metrics.functional.similarity import bootstrap_spearman, similarity_figures, spearman

Column = npt.NDArray[np.float64]


def by_scipy(x: Column, y: Column) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(spearmanr(x, y).statistic)


@given(st.lists(st.tuples(st.integers(-3, 3), st.floats(-1, 1)), min_size=3, max_size=40))
def test_spearman_by_scipy(values: list[tuple[int, float]]) -> None:
    """Ties in either column; NaN where one does not vary."""
    x, y = np.array(values, dtype=np.float64).T
    for a, b in ((x, y), (x, x[::-1]), (x, np.round(y, 1))):
        np.testing.assert_allclose(spearman(a, b), by_scipy(a, b), atol=1e-12, rtol=0)


def test_spearman_of_what_has_none() -> None:
    for x in ([], [1.0], [2.0, 2.0], [1.0, math.nan, 2.0]):
        assert math.isnan(spearman(np.array(x), np.arange(float(len(x)))))
    assert spearman(np.array([1.0, 2.0]), np.array([5.0, 3.0])) == -1


def columns(n: int) -> tuple[Column, Column, Column]:
    """Ratings with ties, and two columns of scores of which the second is closer to them."""
    rng = np.random.default_rng(0)
    ratings = np.round(rng.uniform(0, 10, n), 0)
    noise = rng.standard_normal((2, n))
    return ratings, np.round(0.1 * ratings + noise[0], 1), 0.3 * ratings + noise[1]


def test_bootstrap_by_a_loop() -> None:
    ratings, before, after = columns(60)
    drawn = np.random.default_rng(7).integers(60, size=(30, 60))
    for scores in (before, after):
        expected = [by_scipy(scores[rows], ratings[rows]) for rows in drawn]
        np.testing.assert_allclose(bootstrap_spearman(scores, ratings, 30, seed=7), expected, atol=1e-12, rtol=0)


def test_figures() -> None:
    ratings, before, after = columns(400)
    found = similarity_figures(ratings, before, after, replicates=500, seed=1)
    assert found["n"] == 400
    assert found["before"] == pytest.approx(by_scipy(before, ratings))
    assert found["change"] == found["after"] - found["before"]
    draws = [bootstrap_spearman(scores, ratings, 500, 1) for scores in (before, after)]
    low, high = np.percentile(draws[1] - draws[0], (2.5, 97.5))  # paired
    assert (found["change_low"], found["change_high"]) == (low, high)
    for name in ("before", "after", "change"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert found["change_low"] > 0
    alone = similarity_figures(ratings, before, replicates=500, seed=1)
    assert alone == {key: found[key] for key in ("n", "before", "before_low", "before_high")}


def test_an_interval_covers_as_often_as_it_says() -> None:
    """Of a planted ρ: Spearman's of a normal pair with correlation r is 6/π asin(r/2)."""
    rng, r, inside = np.random.default_rng(3), 0.5, 0
    truth = 6 / math.pi * math.asin(r / 2)
    for _ in range(200):
        x, noise = rng.standard_normal((2, 150))
        found = similarity_figures(x, r * x + math.sqrt(1 - r * r) * noise, replicates=200)
        inside += found["before_low"] <= truth <= found["before_high"]
    assert 178 <= inside <= 200  # 190 are expected, with a standard deviation of 3; percentile intervals run short


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_pairs(n: int) -> None:
    found = similarity_figures(np.arange(float(n)), np.arange(float(n)), np.arange(float(n)))
    assert found.pop("n") == n
    assert all(map(math.isnan, found.values()))


def test_constant_ratings() -> None:
    found = similarity_figures(np.full(9, 4.0), np.arange(9.0))
    assert found.pop("n") == 9
    assert all(map(math.isnan, found.values()))


def test_one_replicate() -> None:
    with pytest.raises(ValueError, match="replicates is 1; an interval needs at least 2"):
        bootstrap_spearman(np.arange(3.0), np.arange(3.0), 1)
