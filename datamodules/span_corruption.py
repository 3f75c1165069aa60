"""Span corruption, T5's pre-training task: replace random spans by sentinels and predict the replaced tokens.

After Raffel et al. (2020, https://arxiv.org/abs/1910.10683), section 3.1.4: 15% of the tokens, in spans of three on
average; each span becomes one sentinel, and the target is each sentinel followed by its span, closed by the end token.
"""

import numpy as np
import numpy.typing as npt

from modulant.corpus.ragged import IntArray


def noise_mask(
    length: int, rng: np.random.Generator, noise_density: float = 0.15, mean_span: float = 3.0
) -> npt.NDArray[np.bool_]:
    """Random mask of the tokens to hide, (length,): T5's ``random_spans_noise_mask``.

    The numbers of hidden tokens and of spans are determined by the length; the lengths of spans and of the gaps between
    them are uniform random partitions. The first token is never hidden, unless it is the only one.

    Raises:
        ValueError: no token, a density outside (0, 1), or a mean span below 1.
    """
    if length < 1 or not 0 < noise_density < 1 or mean_span < 1:
        raise ValueError(
            f"noise_mask needs length >= 1, 0 < noise_density < 1 and mean_span >= 1, "
            f"got {length}, {noise_density}, {mean_span}"
        )
    if length == 1:
        return np.ones(1, dtype=bool)
    hidden = min(max(round(length * noise_density), 1), length - 1)
    spans = min(max(round(hidden / mean_span), 1), length - hidden)
    mask = np.zeros(length, dtype=bool)
    position = 0
    for kept, lost in zip(_partition(length - hidden, spans, rng), _partition(hidden, spans, rng), strict=True):
        mask[position + kept : position + kept + lost] = True
        position += kept + lost
    return mask


def _partition(total: int, parts: int, rng: np.random.Generator) -> list[int]:
    """Random partition of ``total`` into ``parts`` positive numbers, uniform over all such partitions."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.zeros(0, dtype=np.int64)
    edges = [0, *cuts.tolist(), total]
    return [b - a for a, b in zip(edges[:-1], edges[1:], strict=True)]


def corrupt(
    tokens: IntArray, mask: npt.NDArray[np.bool_], first_sentinel: int, end: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (source, target) for given hidden tokens; sentinels count down from ``first_sentinel``.

    >>> hidden = np.array([False, True, True, False])
    >>> source, target = corrupt(np.array([10, 11, 12, 13]), hidden, first_sentinel=99, end=1)
    >>> source.tolist(), target.tolist()
    ([10, 99, 13, 1], [99, 11, 12, 1])
    """
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    sentinel = first_sentinel - (np.cumsum(starts) - 1)
    source = np.where(starts, sentinel, tokens)[~mask | starts]
    target = np.insert(tokens, np.flatnonzero(starts), sentinel[starts])
    hidden = np.insert(mask, np.flatnonzero(starts), True)
    return np.append(source, end).astype(np.int64), np.append(target[hidden], end).astype(np.int64)
