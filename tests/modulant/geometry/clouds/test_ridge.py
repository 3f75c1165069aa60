"""Ridge regression against the normal equations, its penalty against a search by hand, R² of known maps."""

import numpy as np
import pytest
import torch

from modulant.geometry import Ridge, explained
from modulant.geometry.clouds.ridge import _PENALTIES


def cloud(n: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(x: torch.Tensor, y: torch.Tensor, share: float) -> torch.Tensor:
    matrix = x.mT @ x
    return torch.linalg.solve(matrix + share * matrix.trace() / len(matrix) * torch.eye(len(matrix)), x.mT @ y)


@pytest.mark.parametrize("n", [30, 100])  # fewer rows than dimensions, and more
def test_the_penalty_is_the_best_on_the_last_fifth(n: int) -> None:
    x = cloud(n, 40, 0)
    y = x @ cloud(40, 3, 1) + 5 * cloud(n, 3, 2)
    found = Ridge(x).fit(y)
    first = n - n // 5
    errors = [float((x[first:] @ by_hand(x[:first], y[:first], p) - y[first:]).square().sum()) for p in _PENALTIES]
    assert found.penalty == _PENALTIES[int(np.argmin(errors))]
    assert 1e-8 < found.penalty < 100
    torch.testing.assert_close(found.weights, by_hand(x, y, found.penalty), atol=1e-8, rtol=1e-6)


def test_a_linear_map_is_found_back_and_noise_is_given_up() -> None:
    x = cloud(200, 6, 0)
    map_ = cloud(6, 9, 1)
    found = Ridge(x).fit(x @ map_)
    torch.testing.assert_close(found.weights, map_, atol=1e-6, rtol=0)
    noise = Ridge(x).fit(cloud(200, 9, 2))
    assert noise.penalty >= 1
    assert explained(cloud(100, 9, 3), cloud(100, 6, 4) @ noise.weights).item() == pytest.approx(0, abs=0.02)


def test_what_a_prediction_explains() -> None:
    y = cloud(50, 4, 0)
    assert explained(y, y).item() == 1
    assert explained(y, torch.zeros_like(y)).item() == 0
    assert explained(y, 2 * y).item() == pytest.approx(0)
    assert explained(y, -y).item() == pytest.approx(-3)
    weights = torch.zeros(2, 50)
    weights[0, :10], weights[1] = 1, 1
    expected = [explained(y[:10], 0.5 * y[:10]).item(), explained(y, 0.5 * y).item()]
    assert explained(y, 0.5 * y, weights).tolist() == pytest.approx(expected)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="got 4 rows"):
        Ridge(cloud(4, 2, 0))
