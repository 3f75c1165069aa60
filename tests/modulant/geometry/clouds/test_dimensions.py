"""Spectra of clouds: closed forms, NumPy, and the invariances that make them figures of shape."""

import numpy as np
import pytest
import torch

from modulant.geometry import (
    covariance,
    dimensions_for,
    eigenvalues_of,
    entropy_rank,
    gaussian_like,
    gaussian_spectrum,
    participation_ratio,
    unbiased_participation_ratio,
)


def cloud(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "dim"), [(9000, 7), (400, 300)])  # several blocks of rows; of columns
def test_covariance_is_numpys(n: int, dim: int) -> None:
    points = cloud(n, dim) + 3
    expected = np.cov(points.double().numpy().T, bias=True)
    np.testing.assert_allclose(covariance(points).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(
        eigenvalues_of(covariance(points)).numpy(), np.linalg.eigvalsh(expected)[::-1], atol=1e-12
    )
    raw = points.double().numpy()
    np.testing.assert_allclose(covariance(points, centred=False).numpy(), raw.T @ raw / len(raw), atol=1e-12)


def test_ranks_of_known_spectra() -> None:
    flat, steep = torch.ones(12), torch.tensor([8.0, 4.0, 2.0, 1.0, 1.0])
    assert participation_ratio(flat) == 12
    assert entropy_rank(flat).item() == pytest.approx(12, rel=1e-6)
    assert participation_ratio(steep).item() == pytest.approx(256 / 86)
    assert entropy_rank(steep).item() == pytest.approx(2 ** (0.5 + 0.5 + 0.375 + 0.5))
    assert [dimensions_for(steep, share) for share in (0.4, 0.5, 0.75, 0.8, 1.0)] == [1, 1, 2, 3, 5]


def test_plug_in_and_unbiased_participation_ratio_of_few_isotropic_rows() -> None:
    n, dim = 200, 576
    clouds = [cloud(n, dim, seed) for seed in range(4)]
    plug_in = np.mean([participation_ratio(eigenvalues_of(covariance(some))).item() for some in clouds])
    assert plug_in == pytest.approx((n - 1) * dim / (n - 1 + dim), rel=0.01)  # 147.9: the rows, not the dimensions
    unbiased = np.mean([unbiased_participation_ratio(some[:50]).item() for some in clouds])
    assert unbiased == pytest.approx(dim, rel=0.1)


def test_unbiased_participation_ratio_agrees_from_both_gram_matrices() -> None:
    points = cloud(60, 5) * torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0]) + 100  # 30 pairs: by Yᵀ Y
    wide = torch.cat([points, torch.zeros(60, 40)], 1)  # by Y Yᵀ
    assert unbiased_participation_ratio(wide).item() == pytest.approx(unbiased_participation_ratio(points).item())
    expected = (9 + 4 + 3) ** 2 / (81 + 16 + 3)
    many = cloud(20_000, 5, 1) * torch.tensor([3.0, 2.0, 1.0, 1.0, 1.0])
    assert unbiased_participation_ratio(many).item() == pytest.approx(expected, rel=0.03)


def test_unbiased_participation_ratio_needs_two_pairs() -> None:
    with pytest.raises(ValueError, match="got 3 points"):
        unbiased_participation_ratio(cloud(3, 2))


@pytest.mark.parametrize(("n", "dim"), [(400, 60), (40, 60)])
def test_the_null_spectrum_is_that_of_gaussian_points(n: int, dim: int) -> None:
    drawn = torch.stack([eigenvalues_of(covariance(cloud(n, dim, seed))) for seed in range(40)]).mean(0)
    null = torch.stack(gaussian_spectrum(n, dim, 40, seed=9)).mean(0)
    torch.testing.assert_close(null, drawn, rtol=0.04, atol=0.01)
    ratio = np.mean([participation_ratio(values).item() for values in gaussian_spectrum(n, dim, 40, seed=1)])
    assert ratio == pytest.approx((n - 1) * dim / (n - 1 + dim), rel=0.01)


def test_ranks_survive_rotation_shift_and_scale() -> None:
    points = cloud(300, 8) @ torch.diag(torch.arange(1.0, 9.0))
    rotation = torch.linalg.qr(cloud(8, 8, 5)).Q
    moved = 7 * (points @ rotation) + 2
    for rank in (participation_ratio, entropy_rank):
        before, after = (rank(eigenvalues_of(covariance(some))).item() for some in (points, moved))
        assert after == pytest.approx(before, rel=1e-5)


def test_gaussian_clouds_have_the_covariance_they_were_given() -> None:
    wanted = covariance(cloud(50, 4) @ cloud(4, 4, 3))
    first, other = gaussian_like(wanted, 40_000, 2, seed=1)
    torch.testing.assert_close(covariance(first), wanted, rtol=0.05, atol=0.1)
    assert not torch.equal(first, other)
    assert torch.equal(first, next(gaussian_like(wanted, 40_000, 1, seed=1)))
