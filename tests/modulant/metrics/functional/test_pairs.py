"""Every pair is in exactly one block and one cell, and a sample's pairs are distinct."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import modulant.metrics.functional.pairs
from modulant.metrics.functional.pairs import Layout, row_blocks, sampled_pairs


@pytest.mark.parametrize(("n", "ends"), [(0, (0, 0)), (1, (0, 1)), (1, (1, 1)), (50, (0, 50)), (50, (20, 37, 37, 50))])
def test_blocks_hold_every_pair_once_and_rows_of_one_group(
    n: int, ends: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modulant.metrics.functional.pairs, "PAIRS_PER_BLOCK", 120)
    blocks = list(row_blocks(ends))
    assert [row for first, last in blocks for row in range(first, last)] == list(range(n))
    assert all(last <= end or first >= end for first, last in blocks for end in ends)
    assert all((last - first) * (n - first) <= 120 for first, last in blocks)


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("nvasr")), max_size=30), st.booleans())
def test_segments_put_every_pair_into_its_population_and_stratum(points: list[tuple[int, str]], strata: bool) -> None:
    part = np.array([part for part, _ in points], dtype=np.int8)
    pos = np.array([letter for _, letter in points], dtype="U1")
    layout = Layout(part, pos if strata else None)
    assert sorted(layout.order.tolist()) == list(range(len(points)))
    columns = layout.columns.items()
    of_cell = [{name for name, cells in columns if cell in cells} for cell in range(layout.n_cells)]
    seen = []
    for first, last in layout.blocks():
        assert layout.segments(first)[0][0] == first
        for start, stop, cell in layout.segments(first):
            for row in range(first, last):
                for column in range(max(start, row + 1), stop):
                    i, j = layout.order[[row, column]]
                    seen.append((row, column))
                    parts, letters = {part[i], part[j]}, {pos[i], pos[j]}
                    held_out = "held_out" if 2 not in part else "validation"
                    name = "mixed" if len(parts) > 1 else ("train", held_out, "held_out")[part[i]]
                    kind = {"n": "nouns", "v": "verbs"}.get("".join(letters)) if strata else None
                    assert of_cell[cell] == {"all", name} | ({kind, f"{name}/{kind}"} if kind else set())
    assert len(seen) == len(set(seen)) == len(points) * (len(points) - 1) // 2


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
