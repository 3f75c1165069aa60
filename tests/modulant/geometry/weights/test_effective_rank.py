"""Effective ranks: closed forms, Gaussian matrices against their nulls, and the fast way against the slow one."""

import math

import pytest
import torch

from modulant.geometry import (
    SMALLEST,
    effective_ranks,
    gaussian_profile,
    gaussian_ranks,
    leading_ranks,
    singular_values,
    spectrum_profile,
)


def gaussian(m: int, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("m", "n"), [(800, 800), (400, 1600), (1600, 600)])
def test_a_gaussian_matrix_has_the_ranks_of_its_null(m: int, n: int) -> None:
    found, null = effective_ranks(singular_values(gaussian(m, n))), gaussian_ranks(m, n)
    assert found.keys() == null.keys()
    for name in found.keys() - {"condition"}:
        assert found[name] == pytest.approx(null[name], rel=0.02), name
    if m != n:  # of a square one a single condition number may be anything
        assert found["condition"] == pytest.approx(null["condition"], rel=0.05)


@pytest.mark.parametrize(("m", "n"), [(800, 800), (400, 1600), (1600, 600)])
def test_a_gaussian_matrix_has_the_profile_of_its_null(m: int, n: int) -> None:
    found, null = spectrum_profile(singular_values(gaussian(m, n))), gaussian_profile(m, n)
    assert found[:23] == pytest.approx(null[:23], abs=0.02)
    assert found[23:] == pytest.approx(null[23:], abs=0.1)  # the square one's smallest are steep
    assert spectrum_profile(7 * singular_values(gaussian(m, n))) == pytest.approx(found, abs=1e-9)


def test_a_profile_of_few_directions_and_of_none() -> None:
    assert spectrum_profile(torch.tensor([3.0])) == [0.0] * 25
    low_rank = spectrum_profile(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert low_rank[0] == pytest.approx(math.log10(2))
    assert low_rank[-1] == pytest.approx(2 * math.log10(SMALLEST))


def test_condition_of_square_gaussians() -> None:
    found = [effective_ranks(singular_values(gaussian(64, 64, seed)))["condition"] for seed in range(60)]
    assert sum(found) / 60 == pytest.approx(gaussian_ranks(64, 64)["condition"], abs=0.45)  # 3 standard errors


def test_square_nulls_are_the_published_shares() -> None:
    null = {name: value / 1000 for name, value in gaussian_ranks(1000, 1000).items()}
    assert null["participation_ratio"] == 0.5
    assert null["stable_rank"] == 0.25
    assert null["entropy_rank"] == pytest.approx(0.607, abs=5e-4)
    assert null["source/participation_ratio"] == pytest.approx(0.7205, abs=2e-4)
    assert null["rank90"] == pytest.approx(0.51, abs=5e-3)
    assert null["source/rank90"] == pytest.approx(0.67, abs=5e-3)


def test_a_geometric_spectrum() -> None:
    values = 0.5 ** torch.arange(8, dtype=torch.float64)
    found = effective_ranks(values)
    energies = [0.25**i for i in range(8)]
    shares = [e / sum(energies) for e in energies]
    assert found["stable_rank"] == pytest.approx(sum(energies))
    assert found["participation_ratio"] == pytest.approx(1 / sum(p * p for p in shares))
    assert found["entropy_rank"] == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)))
    assert found["rank90"] == 2  # 0.75, 0.94
    assert found["source/rank90"] == 4
    assert found["active"] == 7 / 8  # 1/128 is below 0.01
    assert found["condition"] == pytest.approx(7 * math.log(2))


@pytest.mark.parametrize(("m", "n"), [(60, 24), (24, 60), (40, 40), (9000, 12)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gram_way_is_the_decomposition(m: int, n: int, dtype: torch.dtype) -> None:
    matrix = (gaussian(m, n) * 0.7 ** torch.arange(n)).to(dtype)
    fast, exact = singular_values(matrix), singular_values(matrix, exact=True)
    torch.testing.assert_close(fast / exact[0], exact / exact[0], atol=1e-8, rtol=0)


def test_ranks_change_neither_with_scale_nor_under_rotations() -> None:
    matrix = gaussian(30, 20).double()
    turned = torch.linalg.qr(gaussian(30, 30, 1).double()).Q @ matrix[:, torch.randperm(20)] * 7
    assert effective_ranks(singular_values(turned)) == pytest.approx(effective_ranks(singular_values(matrix)))


def test_a_singular_matrix_and_one_of_zeros() -> None:
    one = torch.outer(torch.arange(1.0, 9.0), torch.ones(5))
    found = effective_ranks(singular_values(one))
    assert found["stable_rank"] == pytest.approx(1)
    assert found["entropy_rank"] == pytest.approx(1)
    assert found["condition"] == math.log(1 / SMALLEST)
    assert all(math.isnan(value) for value in effective_ranks(singular_values(torch.zeros(4, 3))).values())


@pytest.mark.parametrize(("m", "n"), [(300, 500), (500, 300), (257, 257), (9000, 12)])
@pytest.mark.parametrize("slope", [0.0, -0.5, -2.0])  # flat: no gap between the largest singular values
def test_leading_ranks_are_those_of_the_spectrum(m: int, n: int, slope: float) -> None:
    matrix = gaussian(m, n) * torch.arange(1, n + 1) ** slope
    exact = effective_ranks(singular_values(matrix, exact=True))
    for name, value in leading_ranks(matrix).items():
        assert value == pytest.approx(exact[name], rel=1e-5), name


def test_leading_ranks_of_a_line_and_of_nothing() -> None:
    assert leading_ranks(torch.outer(torch.arange(5.0), torch.ones(7))) == {
        "stable_rank": pytest.approx(1),
        "participation_ratio": pytest.approx(1),
    }
    assert all(math.isnan(value) for value in leading_ranks(torch.zeros(3, 4)).values())
