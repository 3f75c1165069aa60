"""Every pair is in exactly one block, and a sample's pairs are distinct."""

import numpy as np
import pytest

import modulant.metrics.functional.pairs
from modulant.metrics.functional.pairs import row_blocks, sampled_pairs


@pytest.mark.parametrize(("n", "n_train"), [(0, 0), (1, 0), (1, 1), (50, 50), (50, 0), (50, 37)])
def test_blocks_hold_every_pair_once_and_one_kind_of_rows(
    n: int, n_train: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modulant.metrics.functional.pairs, "PAIRS_PER_BLOCK", 120)
    blocks = list(row_blocks(n, n_train))
    assert [row for first, last in blocks for row in range(first, last)] == list(range(n))
    assert all(last <= n_train or first >= n_train for first, last in blocks)
    assert all((last - first) * (n - first) <= 120 for first, last in blocks)


@pytest.mark.parametrize(("n", "pairs"), [(2, 1), (2, 5), (300, 2000), (60, 10_000)])
def test_pairs_are_distinct(n: int, pairs: int) -> None:
    i, j = sampled_pairs(n, pairs, seed=3)
    assert len(i) == min(pairs, n * (n - 1) // 2)
    assert ((j >= 0) & (j < i) & (i < n)).all()
    assert len({*zip(i.tolist(), j.tolist(), strict=True)}) == len(i)


def test_a_samples_pairs_ascend_and_repeat_with_their_seed() -> None:
    i, j = sampled_pairs(1000, 5000, seed=1)
    assert (np.diff(i * (i - 1) // 2 + j) > 0).all()
    assert np.array_equal((i, j), sampled_pairs(1000, 5000, seed=1))
    assert not np.array_equal(i, sampled_pairs(1000, 5000, seed=2)[0])
