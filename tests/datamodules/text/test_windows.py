"""Windows over a stream predict every token but the first exactly once, whatever the sizes and the processes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.text.windows import NOTHING, Windows, epoch_order

V = 50
LENGTHS = np.array([*range(1, V), 0])
SIZES = {"n": st.integers(2, 90), "context": st.integers(1, 20), "batch": st.integers(1, 7)}


def windows(n: int, context: int) -> tuple[Windows, np.ndarray]:  # type: ignore[type-arg]
    stream = np.random.default_rng(n).integers(0, V, n).astype(np.uint16)
    return Windows(stream, context, LENGTHS, end=V - 1), stream


def pairs(batch: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    kept = batch["labels"] != -100
    return list(zip(batch["input_ids"][kept].tolist(), batch["labels"][kept].tolist(), strict=True))


@given(**SIZES)
def test_evaluation_predicts_every_token_once_in_order(n: int, context: int, batch: int) -> None:
    some, stream = windows(n, context)
    batches = [some.batch(rows) for rows in some.batches(batch)]
    expected = list(zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True))
    assert [pair for one in batches for pair in pairs(one)] == expected
    assert sum(one["bytes"] for one in batches) == LENGTHS[stream[1:]].sum()
    assert all(-100 not in one["labels"] for one in batches), "a shorter window is not filled up"
    assert {one["input_ids"].shape[1] for one in batches} <= {context, (n - 1) % context}
    assert max(len(one["input_ids"]) for one in batches) <= batch
    assert some.targets(np.arange(len(some))) == some.predicted == n - 1


@given(**SIZES, epoch=st.integers(0, 3))
def test_an_epoch_predicts_every_token_once(n: int, context: int, batch: int, epoch: int) -> None:
    some, stream = windows(n, context)
    order = epoch_order(len(some), batch, seed=7, epoch=epoch)
    batches = [some.batch(rows) for rows in order]
    expected = sorted(zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True))
    assert sorted(pair for one in batches for pair in pairs(one)) == expected
    assert [len(rows) for rows in order[:-1]] == [batch] * (len(order) - 1)
    for rows, one in zip(order, batches, strict=True):
        assert some.targets(rows) == int((one["labels"] != -100).sum())
        assert one["bytes"] == LENGTHS[one["labels"][one["labels"] != -100]].sum()
        assert one["input_ids"].dtype == one["labels"].dtype == torch.int64


@given(**SIZES, world=st.integers(2, 4))
def test_processes_share_each_batch(n: int, context: int, batch: int, world: int) -> None:
    some, _ = windows(n, context)
    for rows in epoch_order(len(some), batch * world, seed=0, epoch=0):
        whole = some.batch(rows)
        shares = [some.shared(rows, rank, world) for rank in range(world)]
        found = [pair for rank in range(world) for pair in pairs(shares[rank])]
        assert sorted(found) == sorted(pairs(whole))
        assert sum(share["bytes"] for share in shares) == whole["bytes"]
        assert {share["weight"] for share in shares} == {world / some.targets(rows)}
        for rank, share in enumerate(shares):
            own = some.batch(rows[rank::world]) if rank < len(rows) else {"input_ids": share["input_ids"]}
            assert torch.equal(share["input_ids"], own["input_ids"])


def test_nothing_counts_nothing() -> None:
    some, _ = windows(40, 8)
    batch = some.batch(NOTHING)
    assert batch["input_ids"].shape == batch["labels"].shape == (1, 8)
    assert (batch["labels"] == -100).all()
    assert batch["bytes"] == 0


def test_epochs_differ_and_follow_from_the_seed() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_order(100, 8, seed, epoch)).tolist()

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    assert np.concatenate(epoch_order(100, 8, 1, 2)).tolist() == np.concatenate(epoch_order(100, 16, 1, 2)).tolist()


@pytest.mark.parametrize("rows", [[5], [0, 5], [5, 0]])
def test_a_shorter_window(rows: list[int]) -> None:
    some, stream = windows(43, 8)  # the sixth predicts two
    batch = some.batch(np.array(rows))
    assert batch["input_ids"].shape == (len(rows), 2 if len(rows) == 1 else 8)
    last = rows.index(5)
    assert batch["labels"][last].tolist() == [*stream[41:43], *[-100] * (batch["labels"].shape[1] - 2)]
    assert batch["input_ids"][last, :2].tolist() == stream[40:42].tolist()
