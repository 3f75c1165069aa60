"""Chain decay and category clustering against loops over pairs in float64."""

import numpy as np
import pytest
import torch

from modulant.metrics import category_clustering, chain_decay
from modulant.metrics.functional.hierarchy import sums_by


def cosines(points: torch.Tensor) -> np.ndarray:
    x = points.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return x @ x.T


def test_the_mean_cosine_at_each_depth_is_that_of_its_links() -> None:
    points = torch.randn(60, 7)
    chains = torch.from_numpy(np.random.default_rng(1).integers(-1, 60, (60, 5)))
    chains[:, 3], chains[1:, 4], chains[0, 4] = -1, -1, 7
    got = chain_decay(points, chains)
    c = cosines(points)
    for depth in range(5):
        links = [c[i, j] for i, j in enumerate(chains[:, depth].tolist()) if j >= 0]
        assert got["count"][depth] == len(links)
        expected = np.mean(links) if links else np.nan
        assert got["cosine"][depth].item() == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_clustering_is_that_of_the_pairs() -> None:
    categories = torch.from_numpy(np.random.default_rng(2).choice([0, 3, 4, 9], size=80))
    categories[5] = 30  # alone
    points = torch.randn(80, 6) + torch.nn.functional.one_hot(categories % 6, 6)
    got = category_clustering(points, categories)
    c = cosines(points)
    i, j = np.triu_indices(80, 1)
    label = categories.numpy()
    same = label[i] == label[j]
    values = c[i, j]
    assert got["within"].item() == pytest.approx(values[same].mean(), abs=1e-12)
    assert got["global"].item() == pytest.approx(values.mean(), abs=1e-12)
    assert got["gap"].item() == pytest.approx(values[same].mean() - values.mean(), abs=1e-12)
    assert got["category"].tolist() == [0, 3, 4, 9, 30]
    for category, cosine, count in zip(got["category"], got["cosine"], got["count"], strict=True):
        chosen = same & (label[i] == category.item())
        assert count == (label == category.item()).sum()
        expected = values[chosen].mean() if chosen.any() else np.nan
        assert cosine.item() == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert got["z"] > 5, "the test's own categories must be there to find"


def test_without_a_relation_the_gap_is_one_of_its_null() -> None:
    categories = torch.arange(400) % 7
    got = category_clustering(torch.randn(400, 10) + 0.3, categories, shuffles=50)
    assert abs(got["z"]) < 4
    again = category_clustering(torch.randn(400, 10), categories, shuffles=50, seed=1)
    assert again["null_mean"] != got["null_mean"]


def test_bad_input_is_told() -> None:
    points = torch.randn(9, 3)
    with pytest.raises(ValueError, match="chains hold 1 to 9"):
        chain_decay(points, torch.arange(1, 10).unsqueeze(1))
    with pytest.raises(ValueError, match="chains of 8 rows for 9 points"):
        chain_decay(points, torch.zeros(8, 2).long())
    with pytest.raises(ValueError, match="9 points and 8 categories"):
        category_clustering(points, torch.zeros(8).long())
    with pytest.raises(ValueError, match="categories hold -1"):
        category_clustering(points, torch.arange(9) - 1)
    with pytest.raises(ValueError, match="shuffles is 1"):
        category_clustering(points, torch.arange(9), shuffles=1)


def test_a_single_category_has_no_spread() -> None:
    torch.manual_seed(0)
    got = category_clustering(torch.randn(50, 8), torch.zeros(50).long())
    assert got["gap"] == pytest.approx(0, abs=1e-12)
    assert torch.isnan(got["z"])


def test_sums_in_a_fixed_order_are_the_same() -> None:
    rows, labels = torch.randn(300, 7, dtype=torch.float64), torch.randint(5, (300,))
    torch.testing.assert_close(
        sums_by(labels, rows, 6, product=True), sums_by(labels, rows, 6, product=False), rtol=0, atol=1e-12
    )
