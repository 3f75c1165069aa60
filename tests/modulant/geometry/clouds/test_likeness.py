"""Unbiased HSIC against a sum over distinct rows, CKA of independent rows, ranks and neighbours against SciPy."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial import KDTree

from modulant.geometry import (
    biased_cka,
    cosines,
    gram,
    nearest_neighbours,
    pair_correlation,
    pair_ranks,
    permuted_cka,
    unbiased_cka,
    unbiased_hsic,
)


def cloud(n: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def hsic_by_tuples(k: torch.Tensor, l: torch.Tensor, weights: torch.Tensor) -> float:
    """The definition: three means over tuples of distinct rows."""
    means = []
    for size, product in (
        (2, lambda i, j: k[i, j] * l[i, j]),
        (4, lambda i, j, q, r: k[i, j] * l[q, r]),
        (3, lambda i, j, q: k[i, j] * l[i, q]),
    ):
        tuples = list(itertools.permutations(range(len(k)), size))
        counts = [math.prod(float(weights[i]) for i in rows) for rows in tuples]
        values = [float(product(*rows)) for rows in tuples]
        means.append(np.average(values, weights=counts))
    return float(means[0] + means[1] - 2 * means[2])


def test_hsic_is_the_mean_over_distinct_rows_with_and_without_weights() -> None:
    k, l = gram(cloud(7, 3, 0)), gram(cloud(7, 2, 1))
    weights = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [2, 1, 0, 1, 3, 1, 1], [0, 1, 1, 1, 1, 0, 1]])
    found = unbiased_hsic(k, l, weights)
    assert found.tolist() == pytest.approx([hsic_by_tuples(k, l, row) for row in weights], abs=1e-12)
    assert unbiased_hsic(k, l).item() == pytest.approx(found[0].item())
    kept = weights[2].bool()
    assert unbiased_hsic(k[kept][:, kept], l[kept][:, kept]).item() == pytest.approx(found[2].item())


def test_hsic_is_the_closed_form_of_song() -> None:
    n = 40
    k, l = gram(cloud(n, 3, 0)), gram(cloud(n, 4, 1))
    a, b = (matrix - matrix.diagonal().diag() for matrix in (k, l))
    closed = (a @ b).trace() + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (a @ b).sum()
    assert unbiased_hsic(k, l).item() == pytest.approx(float(closed) / (n * (n - 3)), rel=1e-10)


@pytest.mark.parametrize(("n", "d", "dim"), [(50, 20, 30), (400, 64, 128)])
def test_independent_rows_are_at_zero_but_for_the_biased_figure(n: int, d: int, dim: int) -> None:
    pairs = [(gram(cloud(n, d, 2 * seed)), gram(cloud(n, dim, 2 * seed + 1))) for seed in range(20)]
    unbiased = np.mean([unbiased_cka(k, l).item() for k, l in pairs])
    assert abs(unbiased) < 3 / n
    biased = np.mean([biased_cka(k, l).item() for k, l in pairs])
    ratio = [(n - 1) * size / (n - 1 + size) for size in (d, dim)]  # participation ratios of the finite clouds
    assert biased == pytest.approx(math.sqrt(ratio[0] * ratio[1]) / (n - 1), rel=0.05)


def test_the_same_cloud_rotated_moved_and_scaled_is_one() -> None:
    x = cloud(60, 8, 0)
    y = 3 * x @ torch.linalg.qr(cloud(8, 8, 1)).Q + 5
    for measure in (unbiased_cka, biased_cka):
        assert measure(gram(x), gram(y)).item() == pytest.approx(1, abs=1e-12)
        assert measure(gram(torch.ones(60, 8)), gram(y)).isnan()


def test_permuted_rows_are_independent_ones() -> None:
    x = cloud(120, 12, 0)
    k = gram(x)
    drawn = permuted_cka(k, k, 50, 1)
    assert drawn.shape == (50, 2)
    assert drawn.mean(0)[0].abs() < 3 / 120
    order = torch.randperm(120, generator=torch.Generator().manual_seed(1))
    moved = gram(x[order])
    assert drawn[0].tolist() == pytest.approx([unbiased_cka(k, moved).item(), biased_cka(k, moved).item()])


def test_correlations_of_pairs_are_scipys() -> None:
    x = cosines(cloud(12, 3, 0))
    y = cosines(cloud(12, 3, 0) + cloud(12, 3, 1)).round(decimals=1)  # with ties
    i, j = np.triu_indices(12, 1)
    rho = stats.spearmanr(x.numpy()[i, j], y.numpy()[i, j]).statistic
    assert pair_correlation(pair_ranks(x), pair_ranks(y)).item() == pytest.approx(rho, abs=1e-12)
    weights = torch.randint(0, 3, (5, 12), generator=torch.Generator().manual_seed(2))
    for w, r in zip(weights, pair_correlation(x, y, weights), strict=True):
        counts = (w[:, None] * w).numpy()[i, j]
        a, b = (np.repeat(matrix.numpy()[i, j], counts) for matrix in (x, y))
        assert r.item() == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-12)


def test_neighbours_are_those_of_a_tree() -> None:
    points = torch.nn.functional.normalize(cloud(2100, 5, 3), dim=-1)  # of two blocks and more
    found = nearest_neighbours(points, 4)
    expected = KDTree(points.numpy()).query(points.numpy(), 5)[1][:, 1:]
    assert torch.equal(found.sum(1), torch.full((2100,), 4))
    assert found.gather(1, torch.from_numpy(expected)).all()
    with pytest.raises(ValueError, match="k is 5; 5 points have 1 to 4 neighbours"):
        nearest_neighbours(points[:5], 5)
