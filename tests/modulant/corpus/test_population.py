"""The population: distinct synsets in the entries' order; held out only where no training entry uses a synset."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modulant.corpus import population
from modulant.corpus.population import Population, held_out_entries, held_out_sources
from modulant.corpus.ragged import Ragged


def test_ninety_to_ten_by_a_seeded_permutation() -> None:
    held_out, test = held_out_entries(9362, 0.1, 42)
    assert (len(held_out), len(test)) == (936, 0)
    assert (np.diff(held_out) > 0).all()
    assert set(held_out.tolist()) <= set(range(9362))
    np.testing.assert_array_equal(held_out, held_out_entries(9362, 0.1, 42)[0])
    assert len(np.intersect1d(held_out, held_out_entries(9362, 0.1, 43)[0])) < 200  # 94 by chance
    assert len(held_out_entries(3, 0.001, 0)[0]) == 1, "at least one"
    assert list(map(len, held_out_entries(3, 0.001, 0, 0.001))) == [1, 1]


def test_a_test_part_is_what_is_held_out_without_it() -> None:
    validation, test = held_out_entries(9362, 0.1, 42, test_fraction=0.1)
    np.testing.assert_array_equal(test, held_out_entries(9362, 0.1, 42)[0])
    np.testing.assert_array_equal(np.union1d(validation, test), held_out_entries(9362, 0.2, 42)[0])
    assert not set(validation) & set(test)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=60), st.floats(0.01, 0.45), st.floats(0.01, 0.45))
def test_no_source_is_in_two_parts(texts: list[int], val_fraction: float, test_fraction: float) -> None:
    sources, n = Ragged.of([[text, 1] for text in texts]), len(texts)
    validation, test = held_out_sources(sources, val_fraction, 3, test_fraction)
    rest = np.setdiff1d(np.arange(n), np.concatenate([validation, test]))
    parts = [{texts[int(i)] for i in rows} for rows in (rest, validation, test)]
    assert sum(map(len, parts)) == len(set(texts))
    assert len(test)
    np.testing.assert_array_equal(test, held_out_sources(sources, test_fraction, 3)[0])
    wanted = max(1, round(n * (val_fraction + test_fraction)) - max(1, round(n * test_fraction)))
    assert len(validation) <= wanted or len(parts[1]) == 1
    population = Population.of(np.array(texts), sources, validation, test)
    assert [int(part) for part in population.part] == [
        next(value for value, part in enumerate(parts) if synset in part) for synset in population.synsets.tolist()
    ]


def test_a_synset_belongs_to_the_first_part_that_uses_it() -> None:
    sources = Ragged.of([[i] for i in range(6)])
    found = Population.of(np.array([5, 5, 7, 7, 8, 9]), sources, np.array([1, 2, 5]), np.array([3, 4]))
    assert dict(zip(found.synsets.tolist(), found.part.tolist(), strict=True)) == {5: 0, 7: 1, 8: 2, 9: 1}
    np.testing.assert_array_equal(found.held_out, found.part > 0)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 99))
def test_a_source_is_held_out_whole(texts: list[int], val_fraction: float, seed: int) -> None:
    sources = Ragged.of([[text, 1] for text in texts])
    held_out, _ = held_out_sources(sources, val_fraction, seed)
    single, _ = held_out_entries(len(texts), val_fraction, seed)
    hidden = {texts[i] for i in held_out}
    assert held_out.tolist() == [i for i, text in enumerate(texts) if text in hidden]
    assert hidden
    assert hidden <= {texts[i] for i in single}, "what was pre-trained outside of the entries' split is outside of it"
    assert len(held_out) <= len(single) or len(hidden) == 1
    np.testing.assert_array_equal(held_out, held_out_sources(sources, val_fraction, seed)[0])
    if len(set(texts)) == len(texts):
        np.testing.assert_array_equal(held_out, single)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=30), st.data())
def test_distinct_and_held_out(synsets: list[int], data: st.DataObject) -> None:
    held_out = np.array(sorted(data.draw(st.sets(st.integers(0, len(synsets) - 1)))), dtype=np.int64)
    sources = Ragged.of([[synset] * (synset + 1) for synset in synsets])
    found = Population.of(np.array(synsets), sources, held_out)
    assert found.synsets.tolist() == list(dict.fromkeys(synsets))
    trained = {synset for i, synset in enumerate(synsets) if i not in held_out}
    assert found.held_out.tolist() == [synset not in trained for synset in found.synsets.tolist()]
    assert [found.sources[i][0] for i in range(len(found))] == found.synsets.tolist()
    rows = []
    for batch_rows, ids, mask in found.batches(4, pad_id=77):
        rows += batch_rows.tolist()
        for row, row_ids, row_mask in zip(batch_rows.tolist(), ids, mask, strict=True):
            assert row_ids[row_mask.bool()].tolist() == found.sources[row].tolist()
            assert (row_ids[~row_mask.bool()] == 77).all()
    assert sorted(rows) == list(range(len(found)))


def test_a_sample_stands_for_very_many() -> None:
    synsets = np.random.default_rng(0).permutation(population.MAX_POPULATION + 500)
    sources = Ragged.of([[int(synset)] for synset in synsets])
    found = Population.of(synsets, sources, np.arange(100))
    assert len(found) == len(set(found.synsets.tolist())) == population.MAX_POPULATION
    position = np.argsort(synsets)[found.synsets]
    assert (np.diff(position) > 0).all(), "in the entries' order"
    np.testing.assert_array_equal(found.held_out, position < 100)
    assert [int(found.sources[i][0]) for i in range(50)] == found.synsets[:50].tolist()
    np.testing.assert_array_equal(found.synsets, Population.of(synsets, sources, np.arange(100)).synsets)
