"""Entries of a matrix: NumPy's moments and shares, Gaussians against their null, and what is no number."""

import math

import numpy as np
import pytest
import torch

from modulant.geometry import entry_figures, gaussian_entries


def gaussian(m: int, n: int, scale: float = 1.0) -> torch.Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(0)) * scale


def test_they_are_numpys() -> None:
    matrix = gaussian(370, 370).exp() - 1  # more than one block, skewed
    matrix[0] = 0
    found, values = entry_figures(matrix), matrix.double().numpy()
    rms, off = np.sqrt((values**2).mean()), values - values.mean()
    assert found["rms"] == pytest.approx(rms)
    assert found["kurtosis"] == pytest.approx((off**4).mean() / (off**2).mean() ** 2 - 3)
    assert found["zeros"] == 1 / 370
    assert found["below_0.01"] == (np.abs(values) < 0.01).mean()
    assert found["below_0.1_rms"] == (np.abs(values) < 0.1 * rms).mean()


@pytest.mark.parametrize("scale", [0.02, 1.0])
def test_gaussians_are_their_null(scale: float) -> None:
    found = entry_figures(gaussian(1000, 1000, scale))
    for name, value in gaussian_entries(found["rms"]).items():
        assert found[name] == pytest.approx(value, abs=0.015 if name == "kurtosis" else 0.002), name


def test_what_is_no_number_is_counted() -> None:
    matrix = gaussian(10, 10)
    matrix[0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    found = entry_figures(matrix)
    assert found["finite"] == 0.97
    assert math.isnan(found["rms"])
