"""Bilinear forms of heads: against their D × D matrices, what leaves a head the same, and what signs are worth."""

import math

import pytest
import torch

from modulant.geometry import (
    bilinear_form,
    effective_ranks,
    positive_share,
    singular_figures,
    stream_gram,
    symmetric_figures,
    trace_cosine,
)


def heads(n: int, d: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("d", "width"), [(4, 20), (8, 16), (8, 8)])  # 2d below, at and above the stream's width
def test_figures_are_those_of_the_whole_matrix(d: int, width: int) -> None:
    left, right = heads(3, d, width), heads(3, d, width, 1)
    form = bilinear_form(left, right)
    found = singular_figures(form) | symmetric_figures(form)
    for head in range(3):
        m = left[head].mT @ right[head]
        ranks = effective_ranks(torch.linalg.svdvals(m))
        values = torch.linalg.eigvalsh((m + m.mT) / 2)
        own = torch.linalg.eigvals(m)
        wanted = {
            "stable_rank": ranks["stable_rank"],
            "participation_ratio": ranks["participation_ratio"],
            "signed_mass": values.sum() / values.abs().sum(),
            "symmetry": (m @ m).trace() / m.square().sum(),
            "reality": own.real.sum() / own.abs().sum(),
        }
        for name, value in wanted.items():
            assert float(found[name][head]) == pytest.approx(float(value), abs=1e-8), name


def test_another_basis_of_a_head_is_the_same_head() -> None:
    left, right, basis = heads(2, 4, 20), heads(2, 4, 20, 1), heads(2, 4, 4, 2)
    first = bilinear_form(left, right)
    other = bilinear_form(basis @ left, torch.linalg.inv(basis).mT @ right)
    wanted = singular_figures(first) | symmetric_figures(first)
    for name, value in (singular_figures(other) | symmetric_figures(other)).items():
        torch.testing.assert_close(value, wanted[name], atol=1e-8, rtol=1e-8)


def test_signs_follow_from_sylvester_alone() -> None:
    left = heads(5, 4, 30)
    for right in (heads(5, 4, 30, 1), left + 0.1 * heads(5, 4, 30, 2), -left + 0.1 * heads(5, 4, 30, 3)):
        found = symmetric_figures(bilinear_form(left, right))
        assert found["source/positive"].tolist() == found["source/negative"].tolist() == [4] * 5


def test_equal_opposite_and_zero_factors() -> None:
    left = heads(1, 4, 20)
    same = symmetric_figures(bilinear_form(left, left))
    assert [float(same[name]) for name in ("signed_mass", "symmetry", "reality")] == pytest.approx([1, 1, 1])
    assert (same["source/positive"], same["source/negative"]) == (4, 0)
    opposite = symmetric_figures(bilinear_form(left, -left))
    assert float(opposite["signed_mass"]) == pytest.approx(-1)
    assert float(opposite["symmetry"]) == pytest.approx(1)
    nothing = bilinear_form(left, torch.zeros_like(left))
    assert math.isnan(float(singular_figures(nothing)["stable_rank"]))
    assert math.isnan(float(symmetric_figures(nothing)["signed_mass"]))


def test_trace_cosine_of_independent_factors() -> None:
    found = trace_cosine(heads(400, 8, 32), heads(400, 8, 32, 1))
    assert float(found.std()) == pytest.approx(1 / math.sqrt(8 * 32), rel=0.1)
    assert float(found.mean()) == pytest.approx(0, abs=4 / math.sqrt(400 * 8 * 32))


def test_the_grams_of_a_matrix_with_rotated_or_permuted_rows_are_equal() -> None:
    matrix = heads(1, 12, 9)[0]
    rotation = torch.linalg.qr(heads(1, 12, 12, 1)[0]).Q
    gram = stream_gram(matrix)
    torch.testing.assert_close(stream_gram(rotation @ matrix), gram)
    assert float(gram.trace()) == pytest.approx(0, abs=1e-12)
    assert float(gram.norm()) == pytest.approx(1)


def test_signs_of_unrelated_matrices_are_half_and_half() -> None:
    generator = torch.Generator().manual_seed(5)
    shares = [positive_share(*torch.randn(2, 128, 160, generator=generator).unbind()) for _ in range(10)]
    assert all(abs(share - 0.5) <= 3 / 128 for share in shares)
    one = torch.randn(32, 40, generator=generator)
    assert (positive_share(one, one), positive_share(one, -one)) == (1.0, 0.0)
