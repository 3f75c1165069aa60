"""Windows of ``context`` predictions over a stream of tokens, as batches.

Window i has the inputs iT … iT + T − 1 and predicts the tokens one further on, so that windows neither overlap nor
leave a token out: each but the first, which is a mark between texts, is predicted once. The last window may be shorter.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modulant.corpus.ragged import IGNORED, IntArray

NOTHING = np.array([-1])  # the windows of a batch that counts nothing


class Windows:
    """The windows of one part.

    Args:
        tokens: of the part, (N,), as `Shards.tokens` has them.
        context: T.
        byte_lengths: number of bytes of each id, (V,).
        end: the id that fills up a shorter window, where nothing is predicted.
    """

    def __init__(
        self, tokens: npt.NDArray[np.unsignedinteger[Any]], context: int, byte_lengths: IntArray, end: int
    ) -> None:
        self._tokens, self._context, self._lengths, self._end = tokens, context, byte_lengths, end

    def __len__(self) -> int:
        return -(-self.predicted // self._context)

    @property
    def predicted(self) -> int:
        """Number of tokens that are predicted: all but the first."""
        return max(len(self._tokens) - 1, 0)

    def targets(self, rows: IntArray) -> int:
        """Number of tokens that some windows predict."""
        return int(np.minimum(self._context, self.predicted - rows * self._context).sum())

    def batches(self, size: int) -> list[IntArray]:
        """Every window once, in order; a shorter one by itself."""
        whole = np.arange(self.predicted // self._context)
        found: list[IntArray] = [whole[i : i + size] for i in range(0, len(whole), size)]
        return found if len(whole) == len(self) else [*found, np.array([len(whole)])]

    def batch(self, rows: IntArray) -> dict[str, Any]:
        """Some windows: ``input_ids`` and ``labels`` (B, T), int64, and ``bytes``.

        Labels are the tokens to predict at each place, not shifted, and -100 where nothing is predicted: behind a
        shorter window's end. ``bytes`` is the number of bytes of the predicted tokens, a Python int. `NOTHING` is one
        window without predictions.
        """
        nothing = np.array_equal(rows, NOTHING)
        places = np.maximum(rows, 0)[:, None] * self._context + np.arange(self._context + 1)
        inside = places < len(self._tokens)
        ids = np.where(inside, self._tokens[np.minimum(places, len(self._tokens) - 1)], self._end).astype(np.int64)
        labels = np.where(inside[:, 1:] & (not nothing), ids[:, 1:], IGNORED)
        longest = int(inside[:, 1:].sum(1).max())
        labels = labels[:, :longest]
        return {
            "input_ids": torch.from_numpy(ids[:, :longest].copy()),
            "labels": torch.from_numpy(labels.copy()),
            "bytes": int(self._lengths[labels[labels != IGNORED]].sum()),
        }

    def shared(self, rows: IntArray, rank: int, world: int) -> dict[str, Any]:
        """Rank ``rank``'s share of a batch: every ``world``-th window, as `modulant.corpus.ragged.shared_batch` has it.

        ``weight``, with several processes: that of the sum over a share's tokens, so that the mean over processes is
        the whole batch's mean. A rank without a window gets one without predictions.
        """
        if world == 1:
            return self.batch(rows)
        own = rows[rank::world]
        return {**self.batch(own if len(own) else NOTHING), "weight": world / self.targets(rows)}


def epoch_order(windows: int, batch_size: int, seed: int, epoch: int) -> Sequence[IntArray]:
    """Every window once, in batches of ``batch_size``, by a permutation that ``(seed, epoch)`` alone determines.

    The last batch may be smaller.

    >>> [rows.tolist() for rows in epoch_order(5, 2, seed=0, epoch=0)]
    [[2, 4], [3, 0], [1]]
    """
    order = np.random.default_rng((seed, epoch)).permutation(windows)
    return [order[i : i + batch_size] for i in range(0, windows, batch_size)]
