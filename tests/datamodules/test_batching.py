"""An epoch's batches: every example once, a function of (seed, epoch), little padding, no two epochs alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.batching import batches_per_epoch, epoch_batches, real_token_share, sorted_batches

lengths = st.lists(st.integers(1, 100), min_size=1, max_size=700).map(np.array)


@given(lengths, st.integers(1, 9), st.integers(0, 5), st.integers(0, 5))
def test_every_example_once(lengths: np.ndarray, batch_size: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert len(batches) == batches_per_epoch(len(lengths), batch_size)
    assert sum(len(batch) < batch_size for batch in batches) == (len(lengths) % batch_size > 0)
    again = epoch_batches(lengths, batch_size, seed, epoch)
    assert [batch.tolist() for batch in again] == [batch.tolist() for batch in batches]


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
