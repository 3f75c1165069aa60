"""Embeddings out of eigenvectors: exact where the matrix has the rank, and the same whatever the signs."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from modulant.geometry import mean_of_nearest, reproduction, spectral_embedding


def unit_points(n: int, dim: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(6, 40), dim=st.integers(1, 5), seed=st.integers(0, 99))
def test_a_gram_matrix_of_low_rank_is_reproduced(n: int, dim: int, seed: int) -> None:
    points = unit_points(n, dim, seed)
    gram = points @ points.mT
    values, vectors = torch.linalg.eigh(gram)
    embedded = spectral_embedding(values.flip(0)[:dim], vectors.flip(1)[:, :dim])
    torch.testing.assert_close(embedded @ embedded.mT, gram, atol=1e-8, rtol=0)


def test_signs_of_eigenvectors_do_not_matter() -> None:
    values, vectors = torch.linalg.eigh(unit_points(12, 3, 0) @ unit_points(12, 3, 0).mT)
    flips = torch.tensor([1.0, -1.0] * 6, dtype=torch.float64)
    torch.testing.assert_close(spectral_embedding(values, vectors), spectral_embedding(values, vectors * flips))


def test_negative_eigenvalues_add_nothing_and_rows_without_extent_stay_zero() -> None:
    embedded = spectral_embedding(torch.tensor([1.0, -2.0]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert embedded.tolist() == [[1.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("n", [3, 17, 1500])  # one block, and a block and a rest
def test_reproduction_is_numpys_correlation_over_pairs(n: int) -> None:
    points, other = unit_points(n, 4, 1), unit_points(n, 4, 2)
    similarity = other @ other.mT
    upper = np.triu_indices(n, 1)
    expected = np.corrcoef((points @ points.mT).numpy()[upper], similarity.numpy()[upper])[0, 1]
    assert float(reproduction(similarity, points)) == pytest.approx(expected, abs=1e-5)


def test_reproduction_of_a_constant_is_undefined() -> None:
    assert reproduction(torch.ones(5, 5), unit_points(5, 2, 0).float()).isnan()


def test_nearest_anchors_are_averaged_by_their_cosines() -> None:
    anchors = unit_points(9, 3, 4).float()
    points = unit_points(9, 2, 5).float()
    query = unit_points(2, 3, 6).float()
    expected = []
    for q in query.numpy():
        cosines = anchors.numpy() @ q
        best = np.argsort(-cosines)[:4]
        weights = np.exp(10 * cosines[best])
        mean = (weights[:, None] * points.numpy()[best]).sum(0)
        expected.append(mean / np.linalg.norm(mean))
    found = mean_of_nearest(3.0 * query, 2.0 * anchors, points, k=4, sharpness=10.0)  # lengths do not matter
    torch.testing.assert_close(found, torch.tensor(np.stack(expected)), atol=1e-6, rtol=0)


def test_more_neighbours_than_anchors_are_refused() -> None:
    with pytest.raises(ValueError, match="k is 3; there are 2 anchors"):
        mean_of_nearest(torch.ones(1, 2), torch.eye(2), torch.eye(2), k=3, sharpness=1.0)


def test_no_queries_give_no_rows() -> None:
    assert mean_of_nearest(torch.ones(0, 2), torch.eye(2), torch.eye(2), k=1, sharpness=1.0).shape == (0, 2)
