"""Moments over all pairs: against every pair formed, and what a Gaussian cloud must give."""

import math

import pytest
import torch

from modulant.geometry import (
    cosine_moments,
    covariance,
    density_ratios,
    eigenvalues_of,
    grouped_cosines,
    paired_cosines,
    participation_ratio,
    squared_distance_moments,
)


def cloud(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def cosines(points: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(points.double(), dim=-1)
    return unit @ unit.mT


@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-7)])
@pytest.mark.parametrize("zero", [False, True])
def test_cosine_moments_are_those_of_every_pair(zero: bool, dtype: torch.dtype, error: float) -> None:
    points = (cloud(70, 6) + 0.4).to(dtype)
    points[3] *= not zero
    i, j = torch.triu_indices(70, 70, 1)
    every = cosines(points)[i, j]
    found = cosine_moments(points)
    assert found.mean == pytest.approx(every.mean().item(), abs=error)
    assert found.sd == pytest.approx(every.std(correction=0).item(), abs=error)


def test_squared_distance_moments_are_those_of_every_pair() -> None:
    points = cloud(70, 6) * torch.arange(1.0, 7.0) + 50
    every = torch.pdist(points.double()).square()
    found = squared_distance_moments(points)
    assert found.mean == pytest.approx(every.mean().item(), rel=1e-12)
    assert found.sd == pytest.approx(every.std(correction=0).item(), rel=1e-9)


def test_spread_of_a_gaussians_squared_distances_is_its_participation_ratio() -> None:
    points = cloud(6000, 30) * torch.linspace(0.2, 2, 30)
    found = squared_distance_moments(points)
    ratio = participation_ratio(eigenvalues_of(covariance(points))).item()
    assert found.sd / found.mean == pytest.approx(math.sqrt(2 / ratio), rel=0.02)


def test_cosines_of_isotropic_points_spread_by_the_root_of_the_dimension() -> None:
    found = cosine_moments(cloud(3000, 64))
    assert found.mean == pytest.approx(0, abs=1e-3)
    assert found.sd == pytest.approx(1 / 8, rel=0.01)


def test_grouped_cosines_are_those_of_every_pair() -> None:
    points, groups = cloud(40, 5) + 0.3, torch.tensor([0] * 7 + [1] * 20 + [2] + [4] * 12)  # 3 is empty
    every, same = cosines(points), groups[:, None] == groups
    off = ~torch.eye(40, dtype=torch.bool)
    found = grouped_cosines(points, groups)
    assert found.within == pytest.approx(every[same & off].mean().item(), abs=1e-12)
    assert found.between == pytest.approx(every[~same].mean().item(), abs=1e-12)
    assert math.isnan(grouped_cosines(points, torch.zeros(40, dtype=torch.int64)).between)
    assert math.isnan(grouped_cosines(points, torch.arange(40)).within)


def test_density_ratios_count_every_pair_once() -> None:
    points = cloud(1500, 4)  # more than a block of rows
    i, j = torch.triu_indices(1500, 1500, 1)
    away = (cosines(points.float()).float()[i, j] - 0.29154).abs()
    inside, all_near = (away < 0.01).sum().item(), (away < 0.03).sum().item()
    beyond, found = density_ratios(points, [1.2, 0.29154])
    assert math.isnan(beyond)
    assert found == pytest.approx(2 * inside / (all_near - inside), rel=1e-3)
    assert found == pytest.approx(1, abs=0.03)


def test_density_ratios_see_a_spike() -> None:
    spike = torch.tensor([[1.0, 0.0], [0.3, math.sqrt(1 - 0.09)]])
    points = torch.cat([torch.nn.functional.pad(spike.repeat(60, 1), (0, 6)), cloud(200, 8)])
    assert density_ratios(points, [0.3])[0] > 5
    assert math.isnan(density_ratios(points[:1], [0.3])[0])


def test_cosines_of_pairs_and_of_all_others() -> None:
    a, b = (torch.randn(40, 6, generator=torch.Generator().manual_seed(seed)) + 0.3 for seed in (1, 2))
    b = a + 0.5 * b
    cosines = torch.nn.functional.cosine_similarity(a.double()[:, None], b.double()[None], dim=-1)
    found = paired_cosines(a, b)
    assert found.own == pytest.approx(cosines.diagonal().mean().item(), abs=1e-12)
    assert found.others == pytest.approx((cosines.sum() - cosines.trace()).item() / (40 * 39), abs=1e-12)
    assert found.own > found.others + 0.3
