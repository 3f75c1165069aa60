"""Path similarity is NLTK's, number for number; all pairs at once are the same as pair by pair."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lexicon import Lexicon, Taxonomy
from lexicon.taxonomy import UNREACHABLE, similarity_of_distance
from tests.wordnets import Synset, write_zip


def test_equal_to_nltk(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    rng = np.random.default_rng(0)
    pairs = [rng.integers(len(lexicon), size=(1000, 2))]  # mostly nouns with nouns
    groups = [np.flatnonzero(lexicon.pos == pos) for pos in "nvasr"]
    pairs += [np.stack([rng.choice(a, 60), rng.choice(b, 60)], 1) for a in groups for b in groups]
    near = rng.integers(len(lexicon) - 20, size=500)  # neighbours in the file are often relatives
    pairs += [np.stack([near, near + rng.integers(0, 20, size=500)], 1)]
    a, b = np.concatenate(pairs).T
    expected = [nltk_synsets[i].path_similarity(nltk_synsets[j]) for i, j in zip(a, b, strict=True)]
    assert len(expected) == 3000
    assert lexicon.taxonomy.path_similarity(a, b).tolist() == expected


@given(data=st.data())
@settings(max_examples=30)
def test_all_pairs_are_each_pair(lexicon: Lexicon, data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, len(lexicon) - 1), max_size=12)), dtype=np.int64)
    ids = np.concatenate([ids, ids[:3]])  # duplicates
    matrix = lexicon.taxonomy.path_distances(ids)
    assert matrix.dtype == np.uint8
    np.testing.assert_array_equal(matrix, lexicon.taxonomy.path_distance(ids[:, None], ids[None, :]))


def test_all_pairs_of_many(lexicon: Lexicon) -> None:
    ids = np.random.default_rng(1).choice(len(lexicon), 1500, replace=False)
    matrix = lexicon.taxonomy.path_distances(ids)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert not matrix.diagonal().any()
    assert (matrix[~np.eye(len(ids), dtype=bool)] > 0).all()
    a, b = np.random.default_rng(2).integers(len(ids), size=(2, 20_000))
    np.testing.assert_array_equal(matrix[a, b], lexicon.taxonomy.path_distance(ids[a], ids[b]))


def test_scalars_and_broadcasting(lexicon: Lexicon) -> None:
    taxonomy = lexicon.taxonomy
    dog, cat, run = (taxonomy.index(name) for name in ("dog.n.01", "cat.n.01", "run.v.01"))
    assert float(taxonomy.path_similarity(dog, cat)) == 0.2
    assert taxonomy.path_similarity(dog, np.array([dog, cat])).tolist() == [1.0, 0.2]
    assert taxonomy.path_distance(np.array([[dog], [run]]), np.array([dog, cat, run])).shape == (2, 3)


def test_no_ids_no_distances(lexicon: Lexicon) -> None:
    assert lexicon.taxonomy.path_distances(np.array([], dtype=np.int64)).shape == (0, 0)


@pytest.mark.parametrize("rows", [[-1], [117_659], [0, 200_000]])
def test_rows_that_are_none(lexicon: Lexicon, rows: list[int]) -> None:
    for call in (lexicon.taxonomy.path_distances, lambda ids: lexicon.taxonomy.path_similarity(0, ids)):
        with pytest.raises(ValueError, match=r"synset rows must lie in 0 … 117658"):
            call(np.array(rows))
    with pytest.raises(ValueError, match="must be integers, got float64"):
        lexicon.taxonomy.path_distances(np.array([0.5]))


def test_names(lexicon: Lexicon) -> None:
    assert lexicon.names[lexicon.taxonomy.index("cat.n.01")] == "cat.n.01"
    with pytest.raises(KeyError, match=r"no synset 'dog'; names look like 'dog\.n\.01'"):
        lexicon.taxonomy.index("dog")


def test_nouns_of_two_roots_are_unreachable(small: list[Synset], tmp_path: Path, cache: Path) -> None:
    taxonomy = Lexicon.load(write_zip(small, tmp_path / "mine.zip")).taxonomy
    canine, doggedly, entity, dog, rex, island, bark = range(7)
    distances = taxonomy.path_distances(np.arange(7))
    assert distances[rex, entity] == 2
    assert distances[island, [entity, dog, rex]].tolist() == [UNREACHABLE] * 3
    assert distances[island, [canine, doggedly, bark]].tolist() == [2, 2, 2]
    assert np.isnan(taxonomy.path_similarity(dog, island))
    # Over the fake root: 1 + the longest way of each, here 2 + 1 and 0 + 1.
    assert distances[rex, bark] == 4
    assert distances[bark, canine] == 2
    np.testing.assert_array_equal(distances, taxonomy.path_distance(np.arange(7)[:, None], np.arange(7)))


def test_a_circle_is_refused() -> None:
    names, pos = ["a.n.01", "b.n.01"], np.array(["n", "n"])
    with pytest.raises(ValueError, match="go round in a circle"):
        Taxonomy(names, pos, np.array([1, 0], dtype=np.int32), np.array([0, 1, 2]))


def test_similarity_of_distance() -> None:
    similarity = similarity_of_distance()
    assert similarity[:3].tolist() == [1.0, 0.5, 1 / 3]
    assert np.flatnonzero(np.isnan(similarity)).tolist() == [UNREACHABLE]
