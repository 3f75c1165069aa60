"""Training synsets and their batches: each once, near pairs together, nothing of the held-out ones."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modulant.assets import MINI
from modulant.backbones.tokenizers import load_tokenizer
from modulant.corpus.batching import synset_batches
from modulant.corpus.entries import Corpus
from modulant.corpus.training_synsets import TrainingSynsets, hypernym_edges
from modulant.lexicon import Lexicon


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus.build(Lexicon.load(), load_tokenizer(str(MINI)), 0.1, 42, "single_token", "entry")


def test_no_held_out_entry_uses_one(corpus: Corpus) -> None:
    """By entry, a synset may be trained on with one lemma and held out with another: such a one is left out."""
    own = TrainingSynsets.of(corpus)
    held_out, trained = corpus.entries.synset[corpus.held_out], corpus.entries.synset[corpus.trained]
    assert set(own.synsets) == set(trained) - set(held_out)
    assert len(own) < len(set(trained))
    drawn = own.drawn_entries(seed=1, epoch=0)
    np.testing.assert_array_equal(trained[drawn], own.synsets)
    assert (own.drawn_entries(1, 1) != drawn).any()
    np.testing.assert_array_equal(own.drawn_entries(1, 0), drawn)
    for row in (0, 100, len(own) - 1):
        np.testing.assert_array_equal(own.sources[row], corpus.sources[int(corpus.trained[drawn[row]])])


def test_edges_are_nltks_hypernyms(corpus: Corpus) -> None:
    own = TrainingSynsets.of(corpus)
    below, above = own.synsets[own.edges.T]
    assert (corpus.lexicon.taxonomy.path_distance(below, above) == 1).all()
    dog, canine = (corpus.lexicon.taxonomy.index(name) for name in ("dog.n.01", "canine.n.02"))
    assert hypernym_edges(corpus.lexicon, np.sort(np.array([dog, canine]))).tolist() in ([[0, 1]], [[1, 0]])


@given(st.integers(1, 60), st.integers(1, 9), st.floats(0, 1), st.integers(0, 3), st.data())
def test_every_synset_once(n: int, size: int, share: float, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 30, n)
    edges = rng.integers(0, n, (data.draw(st.integers(0, 40)), 2))
    edges = edges[edges[:, 0] != edges[:, 1]]
    batches = synset_batches(lengths, edges, size, share, seed, 1)
    assert sorted(np.concatenate(batches).tolist()) == list(range(n))
    assert len(batches) == -(-n // size)
    assert all(len(batch) <= size + 1 for batch in batches)
    again = synset_batches(lengths, edges, size, share, seed, 1)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_the_share_of_near_pairs() -> None:
    """With enough neighbours the share is what was asked for; pairs are not cut, and lengths stay similar."""
    n, rng = 4000, np.random.default_rng(0)
    lengths = rng.integers(3, 40, n)
    edges = np.stack([np.arange(0, n, 2), np.arange(1, n, 2)], axis=1)
    for share in (0.0, 0.3, 1.0):
        batches = synset_batches(lengths, edges, 50, share, 0, 0)
        together = sum(bool(abs(a - b) == 1 and a // 2 == b // 2) for batch in batches for a, b in pairwise(batch))
        # Neighbours that were not drawn as a pair meet by chance.
        assert 2 * together / n == pytest.approx(share, abs=0.02)
    spread = [np.ptp(lengths[batch]) for batch in synset_batches(lengths, edges, 50, 0.0, 0, 0)]
    assert np.mean(spread) < 8
