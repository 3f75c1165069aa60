"""An epoch's batches: every example once, a function of (seed, epoch), little padding, no two epochs alike."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modulant.corpus.batching import batches_per_epoch, epoch_batches, real_token_share, sorted_batches

lengths = st.lists(st.integers(1, 100), min_size=1, max_size=700).map(np.array)


@given(lengths, st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_every_example_once(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == batches_per_epoch(len(lengths), batch_size)
    assert sum(len(batch) < batch_size for batch in batches) == (len(lengths) % batch_size > 0)
    again = epoch_batches(lengths, batch_size, seed, epoch)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


@given(lengths, st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_every_example_once_where_targets_count_too(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    targets = np.random.default_rng(seed).integers(2, 17, size=len(lengths))
    batches = epoch_batches(lengths, batch_size, seed, epoch, targets)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == batches_per_epoch(len(lengths), batch_size)
    again = epoch_batches(lengths, batch_size, seed, epoch, targets)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


@given(lengths, st.integers(1, 9), st.integers(0, 5))
def test_targets_of_one_length_change_nothing(lengths: np.ndarray, batch_size: int, seed: int) -> None:
    plain = epoch_batches(lengths, batch_size, seed, 0)
    same = epoch_batches(lengths, batch_size, seed, 0, np.full_like(lengths, 2))
    assert [batch.tolist() for batch in same] == [batch.tolist() for batch in plain]


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 20), st.sampled_from([32, 64]))
def test_nine_tenths_are_real_where_lengths_are_wordnets(seed: int, epoch: int, batch_size: int) -> None:
    rng = np.random.default_rng(seed)
    sources = np.minimum(4 + rng.gamma(2.2, 5.3, size=40_000).astype(int), 128)  # mean 15.7, as over all of WordNet
    targets = np.minimum(2 + rng.geometric(0.36, size=40_000) - 1, 16)  # mean 3.8
    batches = epoch_batches(sources, batch_size, seed, epoch, targets)
    tokens = [real_token_share(lengths, batches) for lengths in (sources, targets)]
    padded = sources.sum() / tokens[0] + targets.sum() / tokens[1]
    assert (sources.sum() + targets.sum()) / padded >= 0.9
    alone = epoch_batches(sources, batch_size, seed, epoch)
    assert real_token_share(sources, alone) >= 0.9
    assert tokens[1] > 1.5 * real_token_share(targets, alone)


@given(lengths, st.integers(1, 9))
def test_sorted(lengths: np.ndarray, batch_size: int) -> None:
    order = np.concatenate(sorted_batches(lengths, batch_size))
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[order]) >= 0).all()


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, size=5000)
    drawn = [
        [batch.tolist() for batch in epoch_batches(lengths, 32, seed, epoch)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert drawn[one] != drawn[other]
        assert not {tuple(sorted(batch)) for batch in drawn[one]} & {tuple(sorted(batch)) for batch in drawn[other]}


def test_real_token_share() -> None:
    lengths = np.array([2, 4, 4, 4])
    assert real_token_share(lengths, [np.array([0, 1]), np.array([2, 3])]) == pytest.approx(14 / 16)
    assert real_token_share(lengths, [np.array([0, 1]), np.array([2, 3])], multiple=8) == pytest.approx(14 / 32)
    # Lengths spread as widely as definitions are: random batches would hold about half real tokens.
    many = np.random.default_rng(0).gamma(4, 4, size=8000).astype(int) + 2
    assert real_token_share(many, epoch_batches(many, 32, 0, 0)) > 0.85
    random = [np.arange(i, i + 32) for i in range(0, 8000, 32)]
    assert real_token_share(many, random) < 0.55


def test_batches_do_not_come_by_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, size=8000)
    means = [lengths[batch].mean() for batch in epoch_batches(lengths, 32, 0, 0)]
    ranks = np.argsort(np.argsort(means))
    assert abs(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1]) < 0.2  # 250 batches: sd 0.063
