"""Pentachora of clouds: their draws, volumes against simplices in float64, the invariances of the CV, the null."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modulant.geometry import (
    coefficient_of_variation,
    gaussian_null_volumes,
    isotropic_volumes,
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


def by_singular_values(points: torch.Tensor) -> torch.Tensor:
    """The default draws' volumes: no Gram matrix, so a condition number costs its digits once."""
    corners = points.double()[pentachoron_draws(len(points), 1000, 42)]
    return torch.linalg.svdvals(corners[:, 1:] - corners[:, :1]).prod(-1) / 24


@pytest.mark.parametrize("n_points", [200, 2000])  # through the cloud's Gram matrix, and by direct edges
@pytest.mark.parametrize("dim", [16, 256])  # in fp64, and in fp32
@pytest.mark.parametrize("kind", ["one long axis", "very long axis", "two clusters", "far clusters", "few directions"])
def test_volumes_of_ill_conditioned_clouds(n_points: int, dim: int, kind: str) -> None:
    points = torch.randn(n_points, dim)
    match kind:
        case "one long axis":
            points[:, 3] *= 1e4
        case "very long axis":
            points[:, 3] *= 1e9
        case "two clusters":
            points[: n_points // 2] += 1e4 * torch.nn.functional.normalize(torch.randn(dim), dim=0)
        case "far clusters":
            points = points.double()
            points[: n_points // 2] += 1e9 * torch.randn(dim).double()
        case "few directions":
            points = points[:, :3] @ torch.randn(3, dim)  # flat up to fp32's rounding
    expected = by_singular_values(points)
    found = pentachoron_volumes(points, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert pentachoron_cv(points).item() == pytest.approx(coefficient_of_variation(expected).item(), rel=1e-6)


def test_the_null_of_an_ill_conditioned_cloud_is_exact() -> None:
    points = torch.randn(200, 256)
    points[:, 3] *= 1e4
    scale = points.double().std(0, correction=0).float()
    noise = torch.empty(200, 256).normal_(generator=torch.Generator().manual_seed(43))
    torch.testing.assert_close(
        gaussian_null_volumes(points, repeats=2)[0], by_singular_values(noise * scale), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dim", [3, 40])
@pytest.mark.parametrize("n_points", [200, 2000])
def test_pentachora_in_three_dimensions_are_flat(n_points: int, dim: int) -> None:
    # Small integers, so that fp32 rounds nothing; the CV of rounding errors would be a number that means nothing.
    points = (torch.randint(-9, 10, (n_points, 3)) @ torch.randint(-9, 10, (3, dim))).float()
    assert not pentachoron_volumes(points).any()
    assert pentachoron_cv(points).isnan()


@pytest.mark.parametrize("length", [1e-30, 1e-15, 1e15, 1e30])
@pytest.mark.parametrize("dim", [8, 64])
def test_the_unit_of_length_does_not_matter(length: float, dim: int) -> None:
    points = torch.randn(300, dim)
    expected = pentachoron_cv(points)
    torch.testing.assert_close(pentachoron_cv(points * length), expected, rtol=1e-5, atol=0)
    volumes = pentachoron_volumes(points * length, dtype=torch.float64)
    torch.testing.assert_close(volumes / length**4, pentachoron_volumes(points).double(), rtol=1e-5, atol=0)
    null = torch.stack([coefficient_of_variation(volumes) for volumes in gaussian_null_volumes(points * length)])
    assert null.isfinite().all()
    assert abs(expected - null.mean()) < 5 * null.std()
    with pytest.raises(ValueError, match=r"out of torch\.float32's range"):
        pentachoron_volumes(points * length)


def test_an_offset_costs_what_rounding_costs_and_says_when_that_is_all() -> None:
    points = torch.randn(300, 64)
    for offset in (1e3, 1e5, 1e7):
        moved = points + offset
        expected = by_singular_values(moved)
        assert pentachoron_cv(moved).item() == pytest.approx(
            (expected.std(correction=0) / expected.mean()).item(), 1e-6
        )
    assert pentachoron_cv(points.double() + 1e9).item() == pytest.approx(pentachoron_cv(points).item(), rel=1e-5)
    for offset in (1e9, 1e15):
        with pytest.raises(ValueError, match=r"differ by less than torch\.float32 resolves"):
            pentachoron_cv(points + offset)
    assert pentachoron_cv(torch.zeros(30, 8)).isnan()


def test_what_is_no_number_stays_none() -> None:
    points = torch.randn(30, 8)
    points[3, 2] = torch.nan
    volumes, draws = pentachoron_volumes(points), pentachoron_draws(30, 1000, 42)
    assert torch.equal(volumes.isnan(), (draws == 3).any(1))


def test_a_nearly_flat_draw_has_the_gradient_of_its_volume() -> None:
    points = torch.randn(6, 40, dtype=torch.float64)
    points[:, 3] *= 1e6
    points.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: pentachoron_volumes(p, 20).log(), points, eps=1e-7, rtol=1e-3)


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


@pytest.mark.parametrize("dim", [4, 30])
def test_volumes_of_isotropic_points_have_the_closed_form(dim: int) -> None:
    points = torch.randn(60_000, dim, generator=torch.Generator().manual_seed(1))
    volumes = pentachoron_volumes(points, 60_000, 3, torch.float64)
    mean, cv = isotropic_volumes(dim)
    assert volumes.mean().item() == pytest.approx(mean, rel=0.02)
    assert coefficient_of_variation(volumes).item() == pytest.approx(cv, rel=0.03)
    assert np.isnan(isotropic_volumes(3)[1])
