"""Entries: the lemmas of WordNet that are one token of a tokenizer, and their definitions.

A lemma is kept when it is exactly one token, that token was not kept before, and the definition is longer than ten
characters; synsets in WordNet's order, each one's lemmas in order. So every entry is a word with one meaning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from modulant.lexicon.lexicon import Lexicon

Matching = Literal["single_token", "all"]
SplitBy = Literal["synset", "entry"]  # what is held out whole
TRAINING, VALIDATION, TEST = range(3)  # parts of a split; without a test part, validation is what is held out
MIN_DEFINITION = 10  # characters; a definition must be longer

Encode = Callable[[list[str]], list[list[int]]]  # texts to token ids, without special tokens


class Entry(NamedTuple):
    """One definition → lemma pair."""

    lemma: str
    synset: str  # its name, "dog.n.01"
    token_id: int
    definition: str


@dataclass(frozen=True, eq=False)
class Entries(Sequence[Entry]):
    """Lemma–definition pairs as columns; ``token`` is -1 where a lemma is several tokens."""

    lexicon: Lexicon
    lemma: npt.NDArray[np.int64]  # rows of lexicon.lemmas
    synset: npt.NDArray[np.int64]  # rows of the lexicon
    token: npt.NDArray[np.int64]  # ids of the tokenizer

    def __len__(self) -> int:
        return len(self.lemma)

    @overload
    def __getitem__(self, index: int) -> Entry: ...
    @overload
    def __getitem__(self, index: slice) -> list[Entry]: ...
    def __getitem__(self, index: int | slice) -> Entry | list[Entry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        synset = int(self.synset[index])
        return Entry(
            lemma=self.lexicon.lemmas[int(self.lemma[index])],
            synset=self.lexicon.names[synset],
            token_id=int(self.token[index]),
            definition=self.lexicon.definitions[synset],
        )

    @property
    def lemmas(self) -> list[str]:
        return [self.lexicon.lemmas[int(i)] for i in self.lemma]

    @property
    def definitions(self) -> list[str]:
        return [self.lexicon.definitions[int(i)] for i in self.synset]


def _tokens(lexicon: Lexicon, encode: Encode) -> npt.NDArray[np.int64]:
    """The token id of each of WordNet's lemmas, -1 where a lemma is not exactly one token."""
    distinct = list(dict.fromkeys(lexicon.lemmas))
    single = {lemma: ids[0] for lemma, ids in zip(distinct, encode(distinct), strict=True) if len(ids) == 1}
    return np.array([single.get(lemma, -1) for lemma in lexicon.lemmas], dtype=np.int64)


def matched_pairs(lexicon: Lexicon, encode: Encode) -> Entries:
    """Every lemma–definition pair of WordNet with a definition of more than ten characters."""
    synset = np.repeat(np.arange(len(lexicon)), np.diff(lexicon.lemma_starts))
    long_enough = np.array([len(text) > MIN_DEFINITION for text in lexicon.definitions])
    rows = np.flatnonzero(long_enough[synset])
    return Entries(lexicon, rows, synset[rows], _tokens(lexicon, encode)[rows])


def kept_entries(lexicon: Lexicon, encode: Encode) -> Entries:
    """The pairs whose lemma is a single token that no earlier pair has."""
    pairs = matched_pairs(lexicon, encode)
    candidates = np.flatnonzero(pairs.token >= 0)
    _, first = np.unique(pairs.token[candidates], return_index=True)
    rows = np.sort(candidates[first])
    return Entries(lexicon, pairs.lemma[rows], pairs.synset[rows], pairs.token[rows])
