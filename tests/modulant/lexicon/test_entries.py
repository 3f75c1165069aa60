"""The kept entries are SPEC's walk over WordNet, written again over NLTK's objects."""

from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from modulant.assets import MINI
from modulant.lexicon import Entries, Lexicon, kept_entries, matched_pairs


@pytest.fixture(scope="module")
def tokens_of(lexicon: Lexicon) -> dict[str, list[int]]:
    """Each lemma's tokens; to find them takes longer than all the rest."""
    lemmas = sorted(set(lexicon.lemmas))
    tokens = AutoTokenizer.from_pretrained(MINI)(lemmas, add_special_tokens=False, return_attention_mask=False)
    return dict(zip(lemmas, tokens["input_ids"], strict=True))


@pytest.fixture(scope="module")
def entries(lexicon: Lexicon, tokens_of: dict[str, list[int]]) -> Entries:
    return kept_entries(lexicon, lambda texts: [tokens_of[text] for text in texts])


def test_equal_to_the_walk_over_nltk(
    entries: Entries, nltk_synsets: list[Any], tokens_of: dict[str, list[int]]
) -> None:
    walk = [
        (name.replace("_", " "), synset.name(), synset.definition())
        for synset in nltk_synsets
        if len(synset.definition()) > 10
        for name in synset.lemma_names()
    ]
    expected, seen = [], set()
    for lemma, synset, definition in walk:
        ids = tokens_of[lemma]
        if len(ids) == 1 and ids[0] not in seen:
            seen.add(ids[0])
            expected.append((lemma, synset, ids[0], definition))
    assert len(expected) > 5000
    assert list(entries) == expected


def test_columns_and_entries_agree(entries: Entries) -> None:
    first = entries[0]
    assert (first.lemma, first.definition) == (entries.lemmas[0], entries.definitions[0])
    assert entries[-1] == entries[len(entries) - 1]
    assert entries[:3] == [entries[0], entries[1], entries[2]]
    assert len(set(entries.token.tolist())) == len(entries)
    assert (np.diff(entries.lemma) > 0).all(), "in WordNet's order"
    for lemma, synset in zip(entries.lemma[:50], entries.synset[:50], strict=True):
        starts = entries.lexicon.lemma_starts
        assert starts[synset] <= lemma < starts[synset + 1]


def test_all_pairs_whatever_their_tokens(lexicon: Lexicon) -> None:
    pairs = matched_pairs(lexicon, lambda texts: [[7] if text == "dog" else [1, 2] for text in texts])
    assert len(pairs) == 204_575  # of 206,978, those with a definition of more than 10 characters
    assert set(pairs.token.tolist()) == {-1, 7}
    assert min(len(pair.definition) for pair in pairs[:1000]) > 10


def test_nothing_matches(lexicon: Lexicon) -> None:
    assert len(kept_entries(lexicon, lambda texts: [[1, 2]] * len(texts))) == 0
