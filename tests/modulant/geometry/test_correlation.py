"""Correlations from streamed sums, against SciPy on the pairs themselves."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from modulant.geometry import mean_cosine, pearson_from_classes, pearson_from_sums, spearman_from_histograms


@given(seed=st.integers(0, 2**31), classes=st.integers(2, 12), n=st.integers(50, 400))
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
