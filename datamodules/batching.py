"""Which examples go into which batch: similar lengths together, so that little of a batch is padding.

An epoch's batches are a pure function of (seed, epoch, batch size): any process can compute them again, which is what
makes a resumed run see exactly what an unbroken one would have seen. Several processes share each batch, so the size
here is that of all of them together, and what is learned does not depend on their number.
"""

import numpy as np

from datamodules.ragged import IntArray

MEGA = 64  # batches that are sorted by length together: enough for little padding, few enough to stay random


def epoch_batches(lengths: IntArray, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """Every example once, in batches of ``batch_size`` examples of similar length, in random order.

    A random permutation is cut into mega-batches, each is sorted by length and cut into batches, and the order of all
    batches is drawn again; only one batch is shorter. Both draws depend on ``(seed, epoch)`` alone.

    >>> [batch.tolist() for batch in epoch_batches(np.array([3, 9, 3, 9]), 2, seed=0, epoch=0)]
    [[1, 3], [2, 0]]
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    mega = batch_size * MEGA
    batches: list[IntArray] = []
    for start in range(0, len(order), mega):
        part = order[start : start + mega]
        part = part[np.argsort(lengths[part], kind="stable")]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def batches_per_epoch(n: int, batch_size: int) -> int:
    """How many batches `epoch_batches` makes of ``n`` examples."""
    return -(-n // batch_size)


def sorted_batches(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Every example once, sorted by length: for evaluation, where order does not matter but must not change."""
    order = np.argsort(lengths, kind="stable")
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def real_token_share(lengths: IntArray, batches: list[IntArray]) -> float:
    """Share of the tokens in padded batches that are no padding, in (0, 1]."""
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return float(sum(int(lengths[batch].sum()) for batch in batches) / padded)
