"""Points whose cosines follow distances in a taxonomy a little, and every pair of them in fp64."""

import numpy as np
import pytest
import torch

P = 700  # points


@pytest.fixture
def distances() -> np.ndarray:
    rng = np.random.default_rng(3)
    d = np.triu(np.clip(rng.normal(8, 4, (P, P)).round(), 1, 22), 1).astype(np.uint8)
    d[np.triu(rng.random((P, P)) < 0.02, 1)] = 255
    return d + d.T


@pytest.fixture
def held_out() -> np.ndarray:
    return np.random.default_rng(4).random(P) < 0.2


@pytest.fixture
def points(distances: np.ndarray) -> torch.Tensor:
    # Something that follows the distances a little, and off-centre, so that cosines crowd as real ones do.
    d = np.where(distances == 255, 25, distances).astype(float)
    values, vectors = np.linalg.eigh(1 / (1 + d))
    near = vectors[:, -20:] * values[-20:] * 4
    return torch.from_numpy(near + np.random.default_rng(5).normal(0.5, 1, (P, 20))).float()


def pairs_of(points: torch.Tensor, distances: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    x = points.double().numpy()
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    i, j = np.triu_indices(len(x), 1)
    keep = distances[i, j] != 255
    i, j = i[keep], j[keep]
    return i, j, 1 / (1 + distances[i, j].astype(float)), (x @ x.T)[i, j]
