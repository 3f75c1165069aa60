"""Several examples in one row, exactly: what `benchmarks/batches.py` measures, and what the product does not do.

T5 knows a token's place only by its distance to others, j − i, so an example is computed alike wherever it stands in a
row, as long as it sees nothing of its neighbours: masks of blocks in the encoder, of causal blocks in the decoder, and
between the two only an example's own block.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modulant.corpus.ragged import IGNORED, IntArray

Rows = list[list[int]]


class Packed(NamedTuple):
    """Rows of examples: tokens (R, C), targets (R, T), and the three masks (R, 1, queries, keys), true where seen."""

    input_ids: Tensor
    decoder_input_ids: Tensor
    labels: Tensor
    encoder_mask: Tensor
    decoder_mask: Tensor
    cross_mask: Tensor


def first_fit(lengths: IntArray, capacity: int) -> Rows:
    """Examples in rows of at most `capacity` tokens: the longest first, each where it fits first."""
    rows: Rows = []
    free: list[int] = []
    for example in np.argsort(-lengths, kind="stable"):
        length = int(lengths[example])
        at = next((row for row, left in enumerate(free) if left >= length), len(rows))
        if at == len(rows):
            rows.append([])
            free.append(max(capacity, length))
        rows[at].append(int(example))
        free[at] -= length
    return rows


def pack(sources: Sequence[IntArray], targets: Sequence[IntArray], rows: Rows, start: int, pad: int) -> Packed:
    """One batch of the given rows. What fills a row up belongs to block 0, which sees itself alone.

    Args:
        start: the token that a decoder begins with.
    """
    shifted = [np.concatenate([[start], target[:-1]]) for target in targets]
    ids, blocks = _laid_out(sources, rows, pad)
    decoder_ids, decoder_blocks = _laid_out(shifted, rows, pad)
    labels, _ = _laid_out(targets, rows, IGNORED)
    length = labels.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return Packed(
        ids,
        decoder_ids,
        labels,
        _same(blocks, blocks),
        _same(decoder_blocks, decoder_blocks) & causal,
        _same(decoder_blocks, blocks),
    )


def loss_of(model: Any, batch: Packed) -> Tensor:
    """T5's own loss, a mean over target tokens."""
    encoded = model.encoder(input_ids=batch.input_ids, attention_mask=batch.encoder_mask)
    loss: Tensor = model(
        encoder_outputs=encoded,
        attention_mask=batch.cross_mask,
        decoder_input_ids=batch.decoder_input_ids,
        decoder_attention_mask=batch.decoder_mask,
        labels=batch.labels,
        use_cache=False,
    ).loss
    return loss


def _laid_out(sequences: Sequence[IntArray], rows: Rows, fill: int) -> tuple[Tensor, Tensor]:
    """The sequences one after another in their rows, and each token's block, from 1; 0 where a row is filled up."""
    longest = max(sum(len(sequences[i]) for i in row) for row in rows)
    tokens, blocks = np.full((len(rows), longest), fill), np.zeros((len(rows), longest), dtype=np.int64)
    for at, row in enumerate(rows):
        begin = 0
        for block, i in enumerate(row, start=1):
            end = begin + len(sequences[i])
            tokens[at, begin:end], blocks[at, begin:end] = sequences[i], block
            begin = end
    return torch.from_numpy(tokens.astype(np.int64)), torch.from_numpy(blocks)


def _same(queries: Tensor, keys: Tensor) -> Tensor:
    return (queries[:, :, None] == keys[:, None, :])[:, None]
