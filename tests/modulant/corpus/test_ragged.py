"""Sequences in two arrays are the sequences, and a padded batch tells its tokens from its padding."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modulant.corpus.ragged import Ragged, padded_inputs, training_batch

sequences = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=8)


@given(sequences, st.data())
def test_rows_are_the_sequences(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.of(rows)
    assert [ragged[i].tolist() for i in range(len(ragged))] == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    some = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    taken = ragged.take(np.array(some, dtype=np.int64))
    assert [taken[i].tolist() for i in range(len(taken))] == [rows[i] for i in some]
    assert [row.tolist() for row in ragged.rows(np.array(some, dtype=np.int64))] == [rows[i] for i in some]


@given(sequences, st.sampled_from([1, 4]))
def test_padding(rows: list[list[int]], multiple: int) -> None:
    arrays = [np.array(row, dtype=np.int32) for row in rows]
    batch = training_batch(arrays, arrays[::-1], 7, multiple)
    ids, mask, labels = batch["input_ids"], batch["attention_mask"], batch["labels"]
    width = -(-max(len(row) for row in rows) // multiple) * multiple
    assert batch["padded"] is any(len(row) < width for row in rows)
    assert ids.shape == mask.shape == labels.shape == (len(rows), width)
    for i, row in enumerate(rows):
        assert ids[i].tolist() == row + [7] * (width - len(row))
        assert mask[i].tolist() == [1] * len(row) + [0] * (width - len(row))
        assert labels[len(rows) - 1 - i].tolist() == row + [-100] * (width - len(row))


def test_of_nothing() -> None:
    assert len(Ragged.of([])) == 0
    assert padded_inputs([], 0)["input_ids"].shape == (0, 0)
