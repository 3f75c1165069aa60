"""Rotations are found back, and nothing beats them; axes are SciPy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes as scipys
from scipy.stats import ortho_group

from modulant.geometry import mean_cosine, orthogonal_procrustes, principal_axes


def cloud(n: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(8, 40), dim=st.integers(2, 6), seed=st.integers(0, 99))
def test_a_rotation_is_found_back(n: int, dim: int, seed: int) -> None:
    source = cloud(n, dim, seed)
    rotation = torch.from_numpy(ortho_group.rvs(dim, random_state=seed))
    found = orthogonal_procrustes(source, source @ rotation)
    torch.testing.assert_close(found, rotation, atol=1e-9, rtol=0)
    assert float(mean_cosine(source @ found, source @ rotation)) == pytest.approx(1.0, abs=1e-12)


def test_it_is_scipys_and_orthogonal() -> None:
    source, target = cloud(30, 5, 0), cloud(30, 5, 1)
    found = orthogonal_procrustes(source, target)
    np.testing.assert_allclose(found.numpy(), scipys(source.numpy(), target.numpy())[0], atol=1e-12)
    torch.testing.assert_close(found @ found.mT, torch.eye(5, dtype=torch.float64), atol=1e-12, rtol=0)


def test_no_random_rotation_comes_nearer() -> None:
    source, target = cloud(30, 4, 2), cloud(30, 4, 3)
    best = (source @ orthogonal_procrustes(source, target) - target).norm()
    for seed in range(50):
        other = torch.from_numpy(ortho_group.rvs(4, random_state=seed))
        assert (source @ other - target).norm() >= best


def test_axes_are_those_of_the_singular_value_decomposition() -> None:
    points = cloud(50, 6, 4) * torch.tensor([3.0, 2.0, 1.5, 1.0, 0.5, 0.1], dtype=torch.float64) + 5
    axes = principal_axes(points, 3)
    _, _, vh = np.linalg.svd((points - points.mean(0)).numpy(), full_matrices=False)
    np.testing.assert_allclose(np.abs(axes.numpy() @ vh[:3].T), np.eye(3), atol=1e-9)
    assert (axes.gather(1, axes.abs().argmax(1, keepdim=True)) > 0).all()


@pytest.mark.parametrize("n", [0, 5])
def test_axes_that_the_space_does_not_have_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"n is {n}; points of 4 dimensions"):
        principal_axes(cloud(9, 4, 0), n)
