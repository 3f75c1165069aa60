"""Simplices against the Cayley–Menger determinant in NumPy's float64, closed forms, and the motions of space."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modulant.geometry import regular_simplex, simplex_volume, squared_edge_lengths, squared_simplex_volume


def cayley_menger(points: np.ndarray) -> float:
    k = len(points) - 1
    bordered = np.ones((k + 2, k + 2))
    bordered[0, 0] = 0
    bordered[1:, 1:] = ((points[:, None] - points[None]) ** 2).sum(-1)
    return (-1) ** (k + 1) / (2**k * math.factorial(k) ** 2) * np.linalg.det(bordered)


def rotation(dim: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q


@pytest.mark.parametrize("k", range(1, 9))
def test_a_regular_simplex_has_unit_edges_its_centre_at_the_origin_and_its_closed_form_volume(k: int) -> None:
    points = regular_simplex(k, k + 3)
    assert points.shape == (k + 1, k + 3)
    torch.testing.assert_close(squared_edge_lengths(points), torch.ones(k * (k + 1) // 2), rtol=0, atol=1e-6)
    torch.testing.assert_close(points.mean(0), torch.zeros(k + 3), rtol=0, atol=1e-7)
    closed_form = math.sqrt(k + 1) / (math.factorial(k) * math.sqrt(2**k))
    assert simplex_volume(points).item() == pytest.approx(closed_form, rel=1e-6)


def test_a_regular_simplex_needs_a_dimension_for_each_edge_from_a_corner() -> None:
    with pytest.raises(ValueError, match=r"dim is 3; a regular 4-simplex needs at least 4"):
        regular_simplex(4, 3)
    with pytest.raises(ValueError, match="k is 0"):
        regular_simplex(0, 3)


def test_edges_come_in_the_order_of_combinations() -> None:
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert squared_edge_lengths(points).tolist() == [1, 9, 49, 4, 36, 16]


@pytest.mark.parametrize("k", range(1, 7))
def test_volumes_equal_cayley_menger(k: int) -> None:
    points = torch.randn(3, 7, k + 1, 9, dtype=torch.float64)
    expected = [[cayley_menger(p) for p in row] for row in points.numpy()]
    squared = squared_simplex_volume(points)
    assert squared.shape == (3, 7)
    np.testing.assert_allclose(squared, expected, rtol=1e-9)
    np.testing.assert_allclose(squared_simplex_volume(points.float()), expected, rtol=1e-3, atol=1e-9)


@given(k=st.integers(1, 5), extra=st.integers(0, 4), seed=st.integers(0, 2**31), scale=st.floats(0.1, 10))
def test_volumes_move_with_space(k: int, extra: int, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    dim = k + extra
    points = torch.randn(k + 1, dim, generator=generator, dtype=torch.float64)
    moved = scale * points @ rotation(dim, generator) + 3 * torch.randn(dim, generator=generator, dtype=torch.float64)
    shuffled = moved[torch.randperm(k + 1, generator=generator)]
    torch.testing.assert_close(simplex_volume(shuffled), scale**k * simplex_volume(points), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("k", range(1, 6))
def test_gradients_are_those_of_finite_differences(k: int) -> None:
    points = torch.randn(2, k + 1, k + 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_edge_lengths, points)
    assert torch.autograd.gradcheck(squared_simplex_volume, points)
    assert torch.autograd.gradcheck(simplex_volume, points)


@pytest.mark.parametrize("k", range(1, 5))
def test_a_flat_simplex_has_volume_zero_and_a_finite_gradient(k: int) -> None:
    points = torch.zeros(k + 1, 6, requires_grad=True)
    volume = simplex_volume(points)
    (volume + squared_simplex_volume(points)).backward()
    assert volume == 0
    assert points.grad is not None
    assert points.grad.isfinite().all()


def test_sixteen_bits_are_raised_to_thirty_two_under_autocast_too() -> None:
    points = regular_simplex(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        squared = squared_simplex_volume(points.bfloat16())
        assert torch.equal(squared_simplex_volume(points), squared_simplex_volume(points.clone()))
    assert squared.dtype == torch.float32
    assert squared.item() == pytest.approx(5 / (2**4 * 24**2), rel=0.02)  # bf16 keeps 3 digits of the input
