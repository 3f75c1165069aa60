"""Graphs that WordNet does not have: diamonds, several roots, ties, circles; NLTK is asked about them too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modulant.lexicon import Lexicon, Taxonomy
from modulant.lexicon.archive import Archive
from modulant.lexicon.taxonomy import UNREACHABLE
from tests.modulant.lexicon.parity import assert_equal_to_nltk, assert_same_as_matrices
from tests.wordnets import Synset, write_zip


def test_nouns_of_two_roots_are_unreachable(small: list[Synset], tmp_path: Path, cache: Path) -> None:
    taxonomy = Lexicon.load(write_zip(small, tmp_path / "mine.zip")).taxonomy
    canine, doggedly, entity, dog, rex, island, bark = range(7)
    distances = taxonomy.path_distances(np.arange(7))
    assert distances[rex, entity] == 2
    assert distances[island, [entity, dog, rex]].tolist() == [UNREACHABLE] * 3
    assert distances[island, [canine, doggedly, bark]].tolist() == [2, 2, 2]
    assert np.isnan(taxonomy.path_similarity(dog, island))
    assert np.isnan(taxonomy.wup_similarity(dog, island))
    assert np.isnan(taxonomy.wup_matrix(np.array([dog, island]))).tolist() == [[False, True], [True, False]]
    # Over the fake root: 1 + the longest way of each, here 2 + 1 and 0 + 1.
    assert distances[rex, bark] == 4
    assert distances[bark, canine] == 2
    np.testing.assert_array_equal(distances, taxonomy.path_distance(np.arange(7)[:, None], np.arange(7)))


# Hypernyms of synset i, all of them earlier.
GRAPHS: dict[str, tuple[str, list[list[int]]]] = {
    "diamond": ("n", [[], [0], [0], [1, 2], [1, 2], [3, 4]]),
    "diamond of unequal sides": ("n", [[], [0], [1], [2], [0, 3], [4], [3]]),
    "two roots": ("n", [[], [], [0], [1], [0, 1], [2, 3], [2, 3], [4]]),
    "ties of names": ("n", [[], [0], [0], [0], [1, 2, 3], [3, 2, 1], [2], [3]]),
    "a shortcut to the root": ("n", [[], [0], [1], [2], [3], [0, 4], [5], [4, 6]]),
    "verbs of two roots": ("v", [[], [], [0], [1], [0, 1], [2, 3], [4], [5, 6]]),
    "verbs whose way to the fake root is shorter": ("v", [[], [0], [1], [2], [3], [4], [5], [], [0, 7], [6, 8]]),
}


def reader_and_taxonomy(synsets: list[Synset], file: Path) -> tuple[list[Any], Taxonomy]:
    write_zip(synsets, file)
    return list(Archive.find(file).reader().all_synsets()), Lexicon.load(file).taxonomy


def named(pos: str, graph: list[list[int]], names: str) -> list[Synset]:
    return [Synset((names[i],), "one", pos, hypernyms=tuple(above)) for i, above in enumerate(graph)]


@pytest.mark.parametrize("names", ["abcdefghij", "jihgfedcba", "'zya*bcx-k"])  # "'" is smaller than "*ROOT*"
@pytest.mark.parametrize("kind", GRAPHS)
def test_small_graphs(kind: str, names: str, tmp_path: Path, cache: Path) -> None:
    pos, graph = GRAPHS[kind]
    others = [Synset(("quick",), "an adjective", "a"), Synset(("quickly",), "an adverb", "r")]
    other_class = [Synset(("top",), "another root", "nv"[pos == "n"]), Synset(("sub",), "below it", "nv"[pos == "n"])]
    at = len(graph) + len(others)
    other_class[1] = other_class[1]._replace(hypernyms=(at,))
    synsets, taxonomy = reader_and_taxonomy([*named(pos, graph, names), *others, *other_class], tmp_path / "g.zip")
    ids = np.arange(len(synsets))
    pairs = np.stack(np.broadcast_arrays(ids[:, None], ids), -1).reshape(-1, 2)
    assert_equal_to_nltk(taxonomy, synsets, pairs)
    assert_same_as_matrices(taxonomy, ids)
    assert taxonomy.max_depth.tolist() == [synset.max_depth() for synset in synsets]
    assert taxonomy.min_depth.tolist() == [synset.min_depth() for synset in synsets]


@given(data=st.data())
@settings(max_examples=150)
def test_random_graphs(data: st.DataObject) -> None:
    """Against NLTK's algorithm on graphs that no WordNet has, through plain Python objects of NLTK's class."""
    n = data.draw(st.integers(2, 9))
    above = [data.draw(st.lists(st.integers(0, i - 1), max_size=3, unique=True)) if i else [] for i in range(n)]
    kinds = data.draw(st.lists(st.sampled_from("nv"), min_size=n, max_size=n))
    above = [[j for j in some if kinds[j] == kinds[i]] for i, some in enumerate(above)]
    names = [
        f"{letter}.{kind}.01" for letter, kind in zip(data.draw(st.permutations("'abcdefgh"[:n])), kinds, strict=True)
    ]
    synsets = nltk_graph(names, kinds, above)
    starts = np.concatenate([[0], np.cumsum([len(some) for some in above])])
    flat = np.array([j for some in above for j in some], dtype=np.int32)
    taxonomy = Taxonomy(names, np.array(kinds), flat, starts.astype(np.int64))
    ids = np.arange(n)
    pairs = np.stack(np.broadcast_arrays(ids[:, None], ids), -1).reshape(-1, 2)
    assert_equal_to_nltk(taxonomy, synsets, pairs)
    assert_same_as_matrices(taxonomy, ids)


def nltk_graph(names: list[str], kinds: list[str], above: list[list[int]]) -> list[Any]:
    """NLTK's synsets without files: its reader is asked for the version and for synsets by place alone."""
    from nltk.corpus.reader.wordnet import Synset as NLTKSynset

    class Reader:
        def get_version(self) -> str:
            return "3.0"

        def synset_from_pos_and_offset(self, pos: str, offset: int) -> Any:
            return synsets[offset]

    reader = Reader()
    synsets: list[Any] = []
    for name, kind, some in zip(names, kinds, above, strict=True):
        synset = NLTKSynset(reader)
        synset._name, synset._pos = name, kind
        synset._pointers["@"] = {(kind, j) for j in some}
        synsets.append(synset)
    return synsets


def test_a_circle_is_refused() -> None:
    names, pos = ["a.n.01", "b.n.01"], np.array(["n", "n"])
    with pytest.raises(ValueError, match="go round in a circle"):
        Taxonomy(names, pos, np.array([1, 0], dtype=np.int32), np.array([0, 1, 2]))


def chain(levels: int, pos: str) -> Taxonomy:
    """Two ways down from one root, each of so many levels."""
    starts = np.concatenate([[0], np.arange(2 * levels + 1)])
    up = np.array([*range(levels), 0, *range(levels + 1, 2 * levels)], dtype=np.int32)
    return Taxonomy([f"a.{pos}.{i}" for i in range(2 * levels + 1)], np.array([pos] * (2 * levels + 1)), up, starts)


@pytest.mark.parametrize("pos", ["n", "v"])
def test_as_deep_as_a_byte_can_tell(pos: str) -> None:
    taxonomy = chain(60, pos)
    left, right = 60, 120
    assert taxonomy.path_distance(left, right) == 120
    assert taxonomy.path_distances(np.array([left, right]))[0, 1] == 120
    assert taxonomy.max_depth.max() == taxonomy.min_depth.max() == 60
    assert taxonomy.wup_similarity(left, left) == 1
    with pytest.raises(ValueError, match="more than 60 levels up"):
        chain(61, pos)


def test_a_noun_above_a_verb_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.n\.01 is a hypernym of b\.v\.01: nouns and other parts of speech"):
        Taxonomy(["a.n.01", "b.v.01"], np.array(["n", "v"]), np.array([0], dtype=np.int32), np.array([0, 0, 1]))
