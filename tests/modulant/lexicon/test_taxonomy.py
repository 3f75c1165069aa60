"""Path and Wu–Palmer similarity are NLTK's, number for number; all pairs at once are the same as pair by pair."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modulant.lexicon import Lexicon
from modulant.lexicon.taxonomy import UNREACHABLE, similarity_of_distance
from tests.modulant.lexicon.parity import across_parts_of_speech, assert_equal_to_nltk, with_ancestors


def test_equal_to_nltk(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    rng = np.random.default_rng(0)
    near = rng.integers(len(lexicon) - 20, size=1500)  # neighbours in the file are often relatives
    pairs = [
        rng.integers(len(lexicon), size=(1500, 2)),  # mostly nouns with nouns
        across_parts_of_speech(lexicon, rng, 60),
        np.stack([near, near + rng.integers(0, 20, size=1500)], 1),
        with_ancestors(nltk_synsets, lexicon.taxonomy, rng.integers(len(lexicon), size=400)),
    ]
    assert sum(map(len, pairs)) > 10_000
    assert_equal_to_nltk(lexicon.taxonomy, nltk_synsets, np.concatenate(pairs))


@pytest.mark.slow
@pytest.mark.timeout(1200)  # NLTK alone takes a minute of a free core
def test_equal_to_nltk_on_a_hundred_thousand_pairs(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    """Every (synset, ancestor) pair of a population, and pairs of it at random; as a matrix as well."""
    rng, taxonomy = np.random.default_rng(1), lexicon.taxonomy
    population = np.sort(rng.choice(len(lexicon), 4000, replace=False))
    ancestral = with_ancestors(nltk_synsets, taxonomy, population)
    places = rng.integers(len(population), size=(40_000, 2))
    pairs = np.concatenate([ancestral, population[places], across_parts_of_speech(lexicon, rng, 200)])
    assert len(pairs) >= 100_000
    assert_equal_to_nltk(taxonomy, nltk_synsets, pairs)
    i, j = places.T
    ids = population
    np.testing.assert_array_equal(taxonomy.wup_matrix(ids)[i, j], taxonomy.wup_similarity(ids[i], ids[j]))
    np.testing.assert_array_equal(taxonomy.path_distances(ids)[i, j], taxonomy.path_distance(ids[i], ids[j]))


@given(data=st.data())
@settings(max_examples=40)
def test_random_synsets_of_all_parts_of_speech(lexicon: Lexicon, nltk_synsets: list[Any], data: st.DataObject) -> None:
    groups = [np.flatnonzero(lexicon.pos == pos).tolist() for pos in "nvasr"]
    ids = np.array(data.draw(st.lists(st.one_of([st.sampled_from(group) for group in groups]), min_size=1, max_size=5)))
    pairs = np.stack(np.broadcast_arrays(ids[:, None], ids), -1).reshape(-1, 2)
    assert_equal_to_nltk(lexicon.taxonomy, nltk_synsets, pairs)
    assert_equal_to_nltk(lexicon.taxonomy, nltk_synsets, with_ancestors(nltk_synsets, lexicon.taxonomy, ids[:1]))


@given(data=st.data())
@settings(max_examples=30)
def test_all_pairs_are_each_pair(lexicon: Lexicon, data: st.DataObject) -> None:
    ids = np.array(data.draw(st.lists(st.integers(0, len(lexicon) - 1), max_size=12)), dtype=np.int64)
    ids = np.concatenate([ids, ids[:3]])  # duplicates
    taxonomy = lexicon.taxonomy
    paths, wups = taxonomy.path_distances(ids), taxonomy.wup_matrix(ids)
    assert (paths.dtype, wups.dtype) == (np.uint8, np.float64)
    np.testing.assert_array_equal(paths, taxonomy.path_distance(ids[:, None], ids[None, :]))
    np.testing.assert_array_equal(wups, taxonomy.wup_similarity(ids[:, None], ids[None, :]))
    np.testing.assert_array_equal(taxonomy.wup_matrix(ids, np.float32), wups.astype(np.float32))


def test_all_pairs_of_many(lexicon: Lexicon) -> None:
    taxonomy = lexicon.taxonomy
    ids = np.random.default_rng(1).choice(len(lexicon), 1500, replace=False)
    paths, wups = taxonomy.path_distances(ids), taxonomy.wup_matrix(ids)
    np.testing.assert_array_equal(paths, paths.T)
    assert not paths.diagonal().any()
    assert (paths[~np.eye(len(ids), dtype=bool)] > 0).all()
    assert (wups.min(), wups.max()) > (0, 0)
    assert wups.max() == 1
    a, b = np.random.default_rng(2).integers(len(ids), size=(2, 100_000))
    np.testing.assert_array_equal(paths[a, b], taxonomy.path_distance(ids[a], ids[b]))
    np.testing.assert_array_equal(wups[a, b], taxonomy.wup_similarity(ids[a], ids[b]))


def test_wup_is_as_odd_as_nltks(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    """Below 1 on some of the diagonal (a noun shallower than an ancestor by min_depth), and asymmetric in places."""
    taxonomy, nouns = lexicon.taxonomy, np.flatnonzero(lexicon.pos == "n")
    same = taxonomy.wup_similarity(nouns, nouns)
    odd = nouns[same < 1]
    assert len(odd)
    assert_equal_to_nltk(taxonomy, nltk_synsets, np.stack([odd[:50], odd[:50]], 1))
    ids = np.random.default_rng(0).choice(len(lexicon), 3000, replace=False)
    matrix = taxonomy.wup_matrix(ids)
    i, j = np.nonzero(matrix != matrix.T)
    assert len(i)
    assert_equal_to_nltk(taxonomy, nltk_synsets, np.stack([ids[i], ids[j]], 1)[:200])


def test_scalars_and_broadcasting(lexicon: Lexicon) -> None:
    taxonomy = lexicon.taxonomy
    dog, cat, run = (taxonomy.index(name) for name in ("dog.n.01", "cat.n.01", "run.v.01"))
    assert float(taxonomy.path_similarity(dog, cat)) == 0.2
    assert taxonomy.path_similarity(dog, np.array([dog, cat])).tolist() == [1.0, 0.2]
    assert taxonomy.path_distance(np.array([[dog], [run]]), np.array([dog, cat, run])).shape == (2, 3)
    assert taxonomy.wup_similarity(np.array([[dog], [run]]), np.array([dog, cat, run])).shape == (2, 3)
    assert taxonomy.wup_similarity(dog, cat).shape == ()


def test_no_ids(lexicon: Lexicon) -> None:
    for none in (np.array([], dtype=np.int64), np.array([])):
        assert lexicon.taxonomy.path_distances(none).shape == (0, 0)
        assert lexicon.taxonomy.wup_matrix(none).shape == (0, 0)
        assert lexicon.taxonomy.path_similarity(none, none).shape == (0,)
        assert lexicon.taxonomy.wup_similarity(none, none).shape == (0,)
        assert lexicon.taxonomy.hypernym_chains(none, 3).shape == (0, 3)
        assert list(lexicon.taxonomy.path_blocks(none)) == list(lexicon.taxonomy.wup_blocks(none)) == []


@pytest.mark.parametrize("rows", [[-1], [117_659], [0, 200_000]])
def test_rows_that_are_none(lexicon: Lexicon, rows: list[int]) -> None:
    taxonomy = lexicon.taxonomy
    for call in (
        taxonomy.path_distances,
        taxonomy.wup_matrix,
        taxonomy.path_blocks,
        taxonomy.wup_blocks,
        lambda ids: taxonomy.path_similarity(0, ids),
        lambda ids: taxonomy.wup_similarity(ids, 0),
        lambda ids: taxonomy.hypernym_chains(ids, 1),
    ):
        with pytest.raises(ValueError, match=r"synset rows must lie in 0 … 117658, got"):
            call(np.array(rows))
        for wrong in ([0.5], [True], ["dog.n.01"]):
            with pytest.raises(ValueError, match=r"synset rows must be integers, got (float64|bool|<U8)"):
                call(np.array(wrong))


def test_names(lexicon: Lexicon) -> None:
    assert lexicon.names[lexicon.taxonomy.index("cat.n.01")] == "cat.n.01"
    for wrong, near in (("dog", r"dog\.n\.01, dog\.n"), ("catt.n.01", r"cat\.n\.0")):
        with pytest.raises(KeyError, match=rf"no synset '{wrong}'; names look like 'dog\.n\.01'; near it: .*{near}"):
            lexicon.taxonomy.index(wrong)
    with pytest.raises(KeyError, match=r"names look like 'dog\.n\.01'\"$"):
        lexicon.taxonomy.index("ŧŧŧŧ")


def test_depths(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    ids = np.random.default_rng(3).choice(len(lexicon), 3000, replace=False)
    taxonomy = lexicon.taxonomy
    assert taxonomy.max_depth[ids].tolist() == [nltk_synsets[i].max_depth() for i in ids]
    assert taxonomy.min_depth[ids].tolist() == [nltk_synsets[i].min_depth() for i in ids]
    assert taxonomy.max_depth.shape == taxonomy.min_depth.shape == (len(lexicon),)


def test_hypernym_chains(lexicon: Lexicon, nltk_synsets: list[Any]) -> None:
    taxonomy = lexicon.taxonomy
    ids = np.random.default_rng(4).choice(len(lexicon), 2000, replace=False)
    chains = taxonomy.hypernym_chains(ids, 8)
    assert (chains.shape, chains.dtype) == ((2000, 8), np.int64)
    for row, some in zip(ids.tolist(), chains.tolist(), strict=True):
        here, expected = nltk_synsets[row], []
        while len(expected) < 8 and (above := here.hypernyms() or here.instance_hypernyms()):
            here = min(above)  # by name: NLTK's own order is a set's
            expected.append(taxonomy.index(here.name()))
        assert some == expected + [-1] * (8 - len(expected))
    assert taxonomy.hypernym_chains(ids, 0).shape == (2000, 0)
    with pytest.raises(ValueError, match="depth is -1; a chain has 0 steps or more"):
        taxonomy.hypernym_chains(ids, -1)


def test_similarity_of_distance() -> None:
    similarity = similarity_of_distance()
    assert similarity[:3].tolist() == [1.0, 0.5, 1 / 3]
    assert np.flatnonzero(np.isnan(similarity)).tolist() == [UNREACHABLE]
