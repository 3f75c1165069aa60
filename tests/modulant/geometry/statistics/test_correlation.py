"""Correlations from streamed sums, against SciPy on the pairs themselves."""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import pearsonr, spearmanr

from modulant.geometry import (
    centred_ranks,
    mean_cosine,
    partial_correlation,
    pearson_from_classes,
    pearson_from_sums,
    spearman_from_histograms,
)


@hypothesis.given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), n=st.integers(50, 400))
def test_both_equal_scipy_on_tied_data(seed: int, classes: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    group = np.concatenate([[0, classes - 1], rng.integers(classes, size=n)])
    bins = np.concatenate([[0, 39], np.clip(rng.normal(3 * group[2:], 6).astype(int), 0, 39)])
    table = np.zeros((classes, 40))
    np.add.at(table, (group, bins), 1)
    x = np.sort(rng.random(classes)) + np.arange(classes)
    y = bins / 40
    sums = [np.bincount(group, w, minlength=classes) for w in (np.ones(n + 2), y, y**2)]
    pearson = pearson_from_classes(*(torch.from_numpy(t) for t in (x, *sums)))
    assert pearson.item() == pytest.approx(pearsonr(x[group], y)[0], abs=1e-9)
    spearman = spearman_from_histograms(torch.from_numpy(table))
    assert spearman.item() == pytest.approx(spearmanr(group, bins)[0], abs=1e-9)
    a = x[group]
    six = (torch.tensor(s, dtype=torch.float64) for s in (n + 2, a.sum(), y.sum(), a @ a, y @ y, a @ y))
    assert pearson_from_sums(*six).item() == pytest.approx(pearsonr(a, y)[0], abs=1e-9)


def test_what_does_not_vary_has_no_correlation() -> None:
    one = torch.ones(1, dtype=torch.float64)
    assert pearson_from_classes(one, 5 * one, 2 * one, one).isnan()
    four, two, none = 4 * one, 2 * one, 0 * one
    # x is 0.5 four times; then hardly anything else, which `flat` calls rounding; then there is no pair
    assert pearson_from_sums(four, two, two, one, two, one).isnan().all()
    nearly = four, two, two, one * (1 + 1e-9), two, one
    assert pearson_from_sums(*nearly).isfinite().all()
    assert pearson_from_sums(*nearly, flat=1e-6).isnan().all()
    assert pearson_from_sums(*(none,) * 6).isnan().all()
    assert spearman_from_histograms(torch.tensor([[1, 2, 3], [0, 0, 0]])).isnan()


def test_mean_cosine_is_one_for_a_scaled_copy_and_the_cosine_for_a_turn() -> None:
    points = torch.randn(20, 6)
    assert mean_cosine(points, 3 * points).item() == pytest.approx(1, abs=1e-6)
    turned = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, -1.0]])
    assert mean_cosine(*turned).item() == pytest.approx((0.5**0.5 - 1) / 2, abs=1e-6)


def test_partial_correlation_is_that_of_residuals() -> None:
    draws = torch.randn(80, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    given = draws[:, 2:]
    x, y = draws[:, 0] + given.sum(1), draws[:, 1] - 2 * given[:, 0] + 0.5 * draws[:, 0]
    design = np.column_stack([np.ones(80), given.numpy()])
    a, b = (v.numpy() - design @ np.linalg.lstsq(design, v.numpy(), rcond=None)[0] for v in (x, y))
    assert partial_correlation(x, y, given).item() == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-10)
    plain = stats.pearsonr(x.numpy(), y.numpy()).statistic
    assert partial_correlation(x, y, given[:, :0]).item() == pytest.approx(plain, abs=1e-12)
    # Weights are how often an item counts.
    weights = torch.randint(0, 3, (3, 80), generator=torch.Generator().manual_seed(1))
    for w, r in zip(weights, partial_correlation(x, y, given, weights), strict=True):
        several = [v.repeat_interleave(w, dim=0) for v in (x, y, given)]
        assert r.item() == pytest.approx(partial_correlation(*several).item(), abs=1e-10)
    assert partial_correlation(given @ torch.ones(2, dtype=torch.float64), y, given).isnan()
    assert partial_correlation(torch.ones(80), y, given[:, :0]).isnan()


def test_ranks_are_scipys() -> None:
    values = torch.randint(0, 9, (40,), generator=torch.Generator().manual_seed(0)).double()
    expected = stats.rankdata(values.numpy())
    np.testing.assert_allclose(centred_ranks(values).numpy(), expected - expected.mean(), atol=1e-12)
