"""Pentachora of clouds: their draws, volumes against simplices in float64, the invariances of the CV, the null."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modulant.geometry import (
    coefficient_of_variation,
    gaussian_null_volumes,
    pentachoron_cv,
    pentachoron_draws,
    pentachoron_volumes,
    regular_simplex,
    simplex_volume,
)


@given(n_points=st.integers(5, 40), n=st.integers(1, 300), seed=st.integers(0, 2**31))
def test_a_draw_is_five_distinct_rows_and_repeats_with_its_seed(n_points: int, n: int, seed: int) -> None:
    draws = pentachoron_draws(n_points, n, seed)
    assert draws.shape == (n, 5)
    assert draws.min() >= 0
    assert draws.max() < n_points
    assert (draws.sort(dim=1).values.diff(dim=1) > 0).all()
    assert torch.equal(draws, pentachoron_draws(n_points, n, seed))


def test_draws_are_uniform_over_selections() -> None:
    # 6 rows: 6 selections of five, each with probability 1/6; 60,000 draws, standard error 91 a selection.
    missing = 15 - pentachoron_draws(6, 60_000, seed=1).sum(1)
    assert (torch.bincount(missing, minlength=6) - 10_000).abs().max() < 5 * 92
    # And every position sees every row: standard error 91 again.
    first = torch.bincount(pentachoron_draws(6, 60_000, seed=2)[:, 4], minlength=6)
    assert (first - 10_000).abs().max() < 5 * 92


@pytest.mark.parametrize("n_points", [40, 3000])  # through the cloud's Gram matrix, and by direct edges
@pytest.mark.parametrize("decay", [0.0, 0.3])  # round, and so flat that many last pivots are tiny
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_volumes_are_those_of_the_drawn_simplices(n_points: int, decay: float, offset: float) -> None:
    scale = torch.exp(-decay * torch.arange(48))
    points = (torch.randn(n_points, 48) * scale + offset).float()
    expected = simplex_volume(points.double()[pentachoron_draws(n_points, 1000, 7)])
    # Centring in fp32 rounds what the offset has already rounded once more; 1e-4 of a volume is far below a CV's noise.
    torch.testing.assert_close(
        pentachoron_volumes(points, 1000, 7).double(), expected, rtol=1e-3 if offset else 5e-5, atol=0
    )


def test_volumes_of_a_regular_pentachoron_are_the_closed_form_in_any_order() -> None:
    volumes = pentachoron_volumes(regular_simplex(4, 7), n=50)
    torch.testing.assert_close(volumes, torch.full((50,), 5**0.5 / 96), rtol=1e-5, atol=0)


def test_coincident_points_have_volume_zero_and_a_finite_gradient() -> None:
    points = torch.cat([torch.zeros(6, 5), torch.randn(6, 5)]).requires_grad_()
    volumes = pentachoron_volumes(points, n=200)
    assert volumes.isfinite().all()
    assert (volumes == 0).any()
    volumes.sum().backward()
    assert points.grad is not None
    assert points.grad.isfinite().all()


@given(seed=st.integers(0, 2**31), scale=st.floats(0.01, 100), n_points=st.sampled_from([30, 400]))
def test_the_cv_does_not_change_under_rotation_shift_and_scaling(seed: int, scale: float, n_points: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(n_points, 12, generator=generator)
    rotation = torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q
    moved = scale * (points @ rotation + torch.randn(12, generator=generator))
    torch.testing.assert_close(pentachoron_cv(moved, 300), pentachoron_cv(points, 300), rtol=1e-4, atol=0)


def test_the_cv_is_the_populations_standard_deviation_over_mean() -> None:
    points = torch.randn(200, 16)
    volumes = pentachoron_volumes(points).double().numpy()
    assert pentachoron_cv(points).item() == pytest.approx(np.std(volumes) / np.mean(volumes), rel=1e-5)


@pytest.mark.parametrize(("dim", "expected"), [(24, 0.155), (64, 0.083)])
def test_random_unit_vectors_have_the_cv_known_for_their_dimension(dim: int, expected: float) -> None:
    points = torch.nn.functional.normalize(torch.randn(3000, dim), dim=-1)
    assert pentachoron_cv(points, 4000).item() == pytest.approx(expected, abs=0.006)


def test_the_null_of_a_gaussian_cloud_is_the_cloud_itself() -> None:
    points = torch.randn(800, 20) * torch.linspace(0.1, 3, 20) + 5
    clouds = gaussian_null_volumes(points, repeats=30)
    null = torch.stack([coefficient_of_variation(volumes) for volumes in clouds])
    assert null.shape == (30,)
    assert abs(pentachoron_cv(points) - null.mean()) < 4 * null.std()
    assert torch.equal(clouds, gaussian_null_volumes(points, repeats=30))


def test_sixteen_bits_and_autocast_are_worked_in_fp32() -> None:
    points = torch.randn(50, 8)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(pentachoron_cv(points), pentachoron_cv(points.clone()), rtol=0, atol=0)
        inside = pentachoron_cv(points.bfloat16())
    assert inside.dtype == torch.float32
    assert inside == pentachoron_cv(points.bfloat16())


def test_too_few_points_are_an_error() -> None:
    with pytest.raises(ValueError, match="got 4 points"):
        pentachoron_cv(torch.randn(4, 8))
    with pytest.raises(ValueError, match="n is 0"):
        pentachoron_cv(torch.randn(9, 8), n=0)
    with pytest.raises(ValueError, match="repeats is 1"):
        gaussian_null_volumes(torch.randn(9, 8), repeats=1)
