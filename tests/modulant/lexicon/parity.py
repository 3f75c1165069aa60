"""Comparison with NLTK, and of whole matrices with single pairs."""

from typing import Any

import numpy as np
import numpy.typing as npt

from modulant.lexicon import Lexicon, Taxonomy

Pairs = npt.NDArray[np.int64]


def assert_equal_to_nltk(taxonomy: Taxonomy, synsets: list[Any], pairs: Pairs) -> None:
    """None of NLTK's is NaN of ours."""
    for name in ("path_similarity", "wup_similarity"):
        expected = [getattr(synsets[i], name)(synsets[j]) for i, j in pairs.tolist()]
        np.testing.assert_array_equal(getattr(taxonomy, name)(*pairs.T), np.array(expected, dtype=np.float64))


def with_ancestors(synsets: list[Any], taxonomy: Taxonomy, ids: Pairs) -> Pairs:
    """Each of ``ids`` with each of its ancestors (by NLTK) and itself, both ways round."""
    above = [(i, taxonomy.index(up.name())) for i in ids.tolist() for up in synsets[i].common_hypernyms(synsets[i])]
    pairs = np.array(above)
    return np.concatenate([pairs, pairs[:, ::-1]])


def across_parts_of_speech(lexicon: Lexicon, rng: np.random.Generator, each: int) -> Pairs:
    groups = [np.flatnonzero(lexicon.pos == pos) for pos in "nvasr"]
    return np.concatenate([np.stack([rng.choice(a, each), rng.choice(b, each)], 1) for a in groups for b in groups])


def assert_same_as_matrices(taxonomy: Taxonomy, ids: npt.NDArray[np.int64]) -> None:
    for chosen in (ids, ids[::-1], ids[1::2], np.concatenate([ids[-3:], ids, ids[:4]])):
        a, b = chosen[:, None], chosen
        np.testing.assert_array_equal(taxonomy.path_distances(chosen), taxonomy.path_distance(a, b))
        np.testing.assert_array_equal(taxonomy.wup_matrix(chosen), taxonomy.wup_similarity(a, b))
