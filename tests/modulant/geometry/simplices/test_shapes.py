"""Edges and volumes of many simplices at once: the plain functions' numbers, in value and in gradient."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modulant.geometry import regular_simplex, shape_features, simplex_volume
from modulant.geometry.simplices.shapes import features_of, gradient_of_features, order_of

KINDS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


def edges_of(vertices: torch.Tensor, ks: Sequence[int]) -> torch.Tensor:
    """From the first vertex of each simplex to its others."""
    return torch.cat([some[1:] - some[:1] for some in vertices.split([k + 1 for k in ks])])


@settings(max_examples=30, deadline=None)
@given(KINDS, st.integers(4, 9), st.integers(0, 5), st.integers(0, 2**31))
def test_it_is_the_plain_functions(ks: list[int], dim: int, points: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    vertices = torch.randn(sum(k + 1 for k in ks), dim, points, generator=generator, dtype=torch.float64)
    weight = torch.randn(sum(k * (k + 1) // 2 + 1 for k in ks), points, generator=generator, dtype=torch.float64)
    leaf = vertices.clone().requires_grad_()
    plain = shape_features(leaf, ks)
    (plain * weight).sum().backward()
    edges, order = edges_of(leaf, ks), order_of(ks)
    features, kept = features_of(edges.detach(), tuple(ks))
    torch.testing.assert_close(features[order], plain.detach(), rtol=1e-9, atol=1e-9)
    assert not features[-1].any()
    expected = leaf.grad
    gradient = gradient_of_features(weight[torch.tensor(order).argsort()], *kept, tuple(ks))
    (ours,) = torch.autograd.grad(edges, leaf, gradient)
    torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)


def test_fp32_is_as_good_as_the_plain_way_on_bent_regular_simplices() -> None:
    """Where the field uses it: edges near 1. Rounding of a determinant of entries near ½, and no worse."""
    torch.manual_seed(0)
    bent = torch.cat([regular_simplex(k, 8) for k in (1, 2, 4)])[..., None] + 0.05 * torch.randn(10, 8, 200)
    exact = shape_features(bent.double(), (1, 2, 4))
    features = features_of(edges_of(bent, (1, 2, 4)), (1, 2, 4))[0][order_of((1, 2, 4))]
    torch.testing.assert_close(features.double(), exact, rtol=2e-5, atol=1e-8)


def test_a_flat_simplex_has_a_finite_gradient() -> None:
    features, kept = features_of(torch.zeros(4, 8, 2), (4,))
    assert torch.equal(features, torch.zeros(12, 2))
    assert torch.equal(gradient_of_features(torch.ones(11, 2), *kept, (4,)), torch.zeros(4, 8, 2))


def test_the_volume_of_an_edge_is_its_length_to_the_bit() -> None:
    """So LayerNorm of both is exactly 0, and the edge's expert a constant."""
    features, _ = features_of(torch.randn(1, 8, 500), (1,))
    assert torch.equal(features[0], features[1])


def test_its_last_feature_is_the_volume_squared() -> None:
    points = torch.randn(3, 5, 8, dtype=torch.float64)
    volume = features_of(edges_of(points.permute(1, 2, 0), (4,)), (4,))[0][-2].sqrt()
    torch.testing.assert_close(volume, simplex_volume(points))


def test_another_number_of_vertices_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"^shape_features: 4 vertices; simplices of k = \(1, 2\) have another number$"
    ):
        shape_features(torch.zeros(4, 8, 1), (1, 2))
