"""Tokenised texts as two arrays, and padded batches of them.

Texts are tokenised once; a batch is then a gather and needs no tokenizer.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

IGNORED = -100  # the label that cross-entropy ignores

IntArray = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class Ragged:
    """Sequences of token ids: one flat array, and where each begins (one more at the end)."""

    tokens: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    @classmethod
    def of(cls, sequences: Iterable[Sequence[int]]) -> "Ragged":
        rows = list(sequences)
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in rows], out=starts[1:])
        tokens = np.fromiter((token for row in rows for token in row), dtype=np.int32, count=int(starts[-1]))
        return cls(tokens, starts)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> npt.NDArray[np.int32]:
        return self.tokens[self.starts[row] : self.starts[row + 1]]

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.starts)

    def take(self, rows: IntArray) -> "Ragged":
        """The given rows, in that order."""
        lengths = self.lengths[rows]
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
        return Ragged(self.tokens[np.repeat(self.starts[:-1][rows], lengths) + within], starts)

    def rows(self, rows: IntArray) -> list[npt.NDArray[np.int32]]:
        return [self[int(row)] for row in rows]


def pad(sequences: Sequence[IntArray], value: int, multiple: int = 1) -> Tensor:
    """Sequences as one (B, longest) int64 tensor, filled up with ``value`` on the right.

    Args:
        multiple: the longest is rounded up to a multiple of this.

    >>> pad([np.array([5, 1]), np.array([1])], value=0)
    tensor([[5, 1],
            [1, 0]])
    """
    lengths = np.array([len(row) for row in sequences], dtype=np.int64)
    longest = -(-int(lengths.max(initial=0)) // multiple) * multiple
    padded = np.full((len(lengths), longest), value, dtype=np.int64)
    if len(lengths):
        padded[np.arange(longest) < lengths[:, None]] = np.concatenate(sequences)
    return torch.from_numpy(padded)


def padded_inputs(sequences: Sequence[IntArray], pad_id: int, multiple: int = 1) -> dict[str, Tensor]:
    """``input_ids`` (B, longest) of token sequences, and ``attention_mask``: 1 at a token, 0 at padding."""
    ids = pad(sequences, pad_id, multiple)
    lengths = torch.tensor([len(row) for row in sequences])
    return {"input_ids": ids, "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long()}


def training_batch(
    sources: Sequence[IntArray], targets: Sequence[IntArray], pad_id: int, multiple: int = 1
) -> dict[str, Any]:
    """`padded_inputs` of the sources, and ``labels`` (B, T): the targets, -100 at padding.

    ``padded``: whether there is any padding in the sources. It is a Python bool, so training on the batch need not wait
    for the device to read it.
    """
    inputs = padded_inputs(sources, pad_id, multiple)
    padded = inputs["input_ids"].numel() > sum(map(len, sources))
    return {**inputs, "padded": padded, "labels": pad(targets, IGNORED, multiple)}


def shared_batch(
    sources: Sequence[IntArray], targets: Sequence[IntArray], pad_id: int, rank: int, world: int, multiple: int = 1
) -> dict[str, Any]:
    """Rank ``rank``'s share of a batch: every ``world``-th example.

    T5's loss is a mean over target tokens, and shares hold different numbers of them. ``weight`` corrects this: with
    weight = world / (target tokens of the whole batch), the mean over processes of weight · (sum over a process's own
    target tokens) is the whole batch's mean. It is a Python float, so no precision setting rounds it, and present
    only with several processes. A rank without an example gets one without targets.
    """
    if world == 1:
        return training_batch(sources, targets, pad_id, multiple)
    own = slice(rank, None, world)
    if rank < len(sources):
        batch = training_batch(sources[own], targets[own], pad_id, multiple)
    else:
        batch = without_targets(training_batch(sources[:1], targets[:1], pad_id, multiple))
    return {**batch, "weight": world / sum(map(len, targets))}


def without_targets(batch: dict[str, Any]) -> dict[str, Any]:
    """The same batch without targets: it passes through a model and is not counted."""
    return {**batch, "labels": torch.full_like(batch["labels"], IGNORED)}
