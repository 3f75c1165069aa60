"""WordNet's similarity of some synsets, and what a control puts in its place."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import numpy.typing as npt

from modulant.lexicon import Lexicon
from modulant.lexicon.taxonomy import similarity_of_distance
from modulators.training.objectives.base import Synsets

Taxonomic = Literal["wordnet", "shuffled", "part_of_speech", "random"]
_SAMPLE = 2048  # synsets behind the means of `part_of_speech`
Relation = Callable[[Synsets], npt.NDArray[np.float64]]  # rows of the lexicon → a symmetric matrix


def relation_of(
    relation: Literal["path", "wup"], taxonomy: Taxonomic, lexicon: Lexicon, synsets: Synsets, seed: int
) -> Relation:
    """The similarity that a training is to follow.

    Args:
        relation: which of WordNet's.
        taxonomy: WordNet's own, or a control.
        lexicon: WordNet.
        synsets: the training synsets, among which ``shuffled`` permutes.
        seed: of the controls.
    """
    if taxonomy == "random":
        return lambda rows: _hashed(rows, seed)
    similarity = _path if relation == "path" else _wup
    if taxonomy == "part_of_speech":
        return _by_part_of_speech(similarity, lexicon, synsets)
    if taxonomy == "wordnet":
        return lambda rows: similarity(lexicon, rows)
    other = np.arange(len(lexicon))
    other[synsets] = np.random.default_rng(seed).permutation(synsets)
    return lambda rows: similarity(lexicon, other[rows])


def _by_part_of_speech(
    similarity: Callable[[Lexicon, Synsets], npt.NDArray[np.float64]], lexicon: Lexicon, synsets: Synsets
) -> Relation:
    """The mean similarity of the two parts of speech: all that they say of it, and nothing else.

    It is taken over pairs of evenly spread training synsets, and is NaN for two that have no pair there.
    """
    some = synsets[:: max(1, len(synsets) // _SAMPLE)]
    kinds = np.unique(lexicon.part_of_speech)
    place = np.searchsorted(kinds, lexicon.part_of_speech)
    found, pair = similarity(lexicon, some), place[some][:, None] * len(kinds) + place[some]
    counted = np.isfinite(found) & ~np.eye(len(some), dtype=bool)
    sums = np.bincount(pair[counted], found[counted], len(kinds) ** 2)
    with np.errstate(invalid="ignore"):
        means = (sums / np.bincount(pair[counted], minlength=len(kinds) ** 2)).reshape(len(kinds), len(kinds))
    return lambda rows: means[place[rows][:, None], place[rows]]


def _path(lexicon: Lexicon, rows: Synsets) -> npt.NDArray[np.float64]:
    return similarity_of_distance()[lexicon.taxonomy.path_distances(rows)]


def _wup(lexicon: Lexicon, rows: Synsets) -> npt.NDArray[np.float64]:
    found = lexicon.taxonomy.wup_matrix(rows)
    return (found + found.T) / 2


def _hashed(rows: Synsets, seed: int) -> npt.NDArray[np.float64]:
    """Uniform in [0, 1) for each unordered pair, the same in every batch: SplitMix64 of both rows and the seed.

    >>> found = _hashed(np.array([3, 5]), 1)
    >>> bool(found[0, 1] == found[1, 0] == _hashed(np.array([5, 9, 3]), 1)[0, 2])
    True
    """
    low, high = np.minimum(rows[:, None], rows), np.maximum(rows[:, None], rows)
    with np.errstate(over="ignore"):
        x = _mixed(_mixed(_mixed(np.uint64(seed) + low.astype(np.uint64)) + high.astype(np.uint64)))
    return (x >> np.uint64(11)).astype(np.float64) / 2.0**53


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
