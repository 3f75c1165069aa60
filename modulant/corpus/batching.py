"""Which examples go into which batch: similar lengths together, so that there is little padding.

The batches of an epoch are a pure function of (seed, epoch, batch size): any process can compute them again, so a
resumed run sees exactly the batches of an uninterrupted one. Several processes share each batch: the batch size here is
the total over processes, and training does not depend on their number.
"""

import numpy as np

from modulant.corpus.ragged import IntArray

MEGA = 64  # number of batches sorted by length together: enough for little padding, few enough to stay random
MEGA_OF_PAIRS = 320  # the same where targets have lengths too: fewer examples agree in two lengths
BAND = 3  # source lengths that go together where batches are of similar targets as well
BLUR = 2.0  # tokens by which the lengths of synsets are blurred before they are sorted


def epoch_batches(
    lengths: IntArray, batch_size: int, seed: int, epoch: int, targets: IntArray | None = None
) -> list[IntArray]:
    """Every example once, in batches of ``batch_size`` examples of similar length, in random order.

    A random permutation is cut into mega-batches, each is sorted by length and cut into batches, and the order of all
    batches is drawn again; only one batch is shorter. Both draws depend on ``(seed, epoch)`` alone.

    Args:
        lengths: of the sources.
        targets: lengths of the targets, where they are padded too; without effect where all are equal.

    >>> [batch.tolist() for batch in epoch_batches(np.array([3, 9, 3, 9]), 2, seed=0, epoch=0)]
    [[1, 3], [2, 0]]
    """
    if targets is not None and (targets == targets[:1]).all():
        targets = None
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    mega = batch_size * (MEGA if targets is None else MEGA_OF_PAIRS)
    batches: list[IntArray] = []
    for start in range(0, len(order), mega):
        part = order[start : start + mega]
        part = part[_side_by_side(lengths[part], None if targets is None else targets[part])]
        batches += [part[i : i + batch_size] for i in range(0, len(part), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _side_by_side(lengths: IntArray, targets: IntArray | None) -> IntArray:
    """An order in which neighbours have similar lengths, of their targets too where these are given.

    Sources ascend in bands of a few lengths. Targets ascend within one band and descend within the next, so neighbours
    across two bands are similar too. One more source token costs less than a target of eight tokens instead of two.
    """
    if targets is None:
        return np.argsort(lengths, kind="stable")
    band = lengths // BAND
    return np.lexsort((lengths, np.where(band % 2, -targets, targets), band))


def batches_per_epoch(n: int, batch_size: int) -> int:
    """Number of batches that `epoch_batches` makes of ``n`` examples.

    >>> batches_per_epoch(9, 4)
    3
    """
    return -(-n // batch_size)


def sorted_batches(lengths: IntArray, batch_size: int) -> list[IntArray]:
    """Every example once, sorted by length: for evaluation, where the order is free but must be fixed."""
    order = _side_by_side(lengths, None)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def real_token_share(lengths: IntArray, batches: list[IntArray], multiple: int = 1) -> float:
    """Share of the tokens in padded batches that are not padding, in (0, 1].

    Args:
        multiple: what the length of a batch is rounded up to.

    >>> real_token_share(np.array([4, 2]), [np.array([0, 1])])
    0.75
    """
    padded = sum(len(batch) * (-(-int(lengths[batch].max()) // multiple) * multiple) for batch in batches)
    return float(sum(int(lengths[batch].sum()) for batch in batches) / padded)


def synset_batches(
    lengths: IntArray, edges: IntArray, batch_size: int, near_pairs: float, seed: int, epoch: int
) -> list[IntArray]:
    """Every synset once, in batches of similar length that keep pairs of neighbours together, in random order.

    A random matching of neighbours covers a share of the synsets, or as many as have a free neighbour. Pairs and single
    synsets are sorted by length, blurred by `BLUR` tokens so that batches differ from epoch to epoch, and cut into
    batches whose sizes differ by two at most. All draws depend on ``(seed, epoch)`` alone.

    Args:
        lengths: of the sources, one a synset.
        edges: (edges, 2) pairs of neighbours.
        batch_size: the most synsets in a batch, but for the second one of a pair.
        near_pairs: share of the synsets that stand beside a neighbour.

    >>> batches = synset_batches(np.array([3, 9, 4, 9]), np.array([[0, 1]]), 2, 1.0, seed=0, epoch=0)
    >>> sorted(sorted(batch.tolist()) for batch in batches)
    [[0, 1], [2, 3]]
    """
    rng = np.random.default_rng((seed, epoch))
    n = len(lengths)
    partner = np.full(n, -1)
    wanted = round(near_pairs * n)
    for a, b in rng.permutation(edges).tolist() if wanted > 1 else ():
        if wanted > 1 and partner[a] < 0 and partner[b] < 0:
            partner[a], partner[b] = b, a
            wanted -= 2
    longest = np.where(partner < 0, lengths, np.maximum(lengths, lengths[partner])) + rng.uniform(-BLUR, BLUR, n)
    first = np.where(partner < 0, np.arange(n), np.minimum(np.arange(n), partner))  # a pair has the key of one of them
    order = np.lexsort((first, longest[first]))
    parts = batches_per_epoch(n, batch_size)
    batches, start = [], 0
    for end in np.round(np.arange(1, parts + 1) * n / parts).astype(int).tolist():
        # A pair is not cut: its second synset goes on to the next batch, and takes the first one along.
        if end < n and partner[order[end - 1]] == order[end]:
            end -= 1
        batches.append(order[start:end])
        start = end
    return [batches[i] for i in rng.permutation(len(batches))]
