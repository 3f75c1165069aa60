"""The population over which geometry is measured: the distinct synsets of the entries, as tokenised source texts."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modulant.corpus.batching import sorted_batches
from modulant.corpus.ragged import IntArray, Ragged, padded_inputs

PREFIX = "summarize: "
MAX_SOURCE = 128  # tokens, the end token included
MAX_TARGET = 16

# Distances of all pairs take its square in bytes. No tokenizer's single-token entries come near it.
MAX_POPULATION = 20_000

EvaluationBatch = tuple[Tensor, Tensor, Tensor]  # rows (B,), input ids (B, S), attention mask (B, S)


def prefixed(text: str) -> str:
    """A prompt with the task's prefix, added if it is missing.

    >>> prefixed("a small dog")
    'summarize: a small dog'
    """
    return text if text.startswith(PREFIX) else PREFIX + text


def held_out_entries(n: int, val_fraction: float, seed: int) -> npt.NDArray[np.int64]:
    """Which of ``n`` entries are held out: the last ``val_fraction`` of a seeded permutation, at least one."""
    order = np.random.default_rng(seed).permutation(n)
    return np.sort(order[n - max(1, round(n * val_fraction)) :])


def held_out_sources(sources: Ragged, val_fraction: float, seed: int) -> npt.NDArray[np.int64]:
    """Which entries are held out where entries with the same source text must not be split.

    They are some of those of `held_out_entries`, from the end of the same permutation, each with all entries of its
    source; as many as there, but for a few where no group fits any more. A backbone that was pre-trained outside the
    sources of `held_out_entries` is therefore outside of these too. A source with several entries is held out more
    often than one with a single entry.

    Args:
        sources: of each entry; two synsets may have the same.
    """
    n = len(sources)
    number: dict[bytes, int] = {}
    group = np.array([number.setdefault(sources[i].tobytes(), len(number)) for i in range(n)])
    sizes, order = np.bincount(group), np.random.default_rng(seed).permutation(n)
    taken = np.zeros(len(number), dtype=bool)
    left = wanted = max(1, round(n * val_fraction))
    for row in order[n - wanted :][::-1]:
        if not taken[group[row]] and sizes[group[row]] <= left:
            taken[group[row]] = True
            left -= sizes[group[row]]
    if left == wanted:  # the groups are all larger than what is wanted
        taken[group[order[-1]]] = True
    return np.flatnonzero(taken[group])


@dataclass(frozen=True, eq=False)
class Population:
    """Distinct synsets in the order of the entries; a synset is held out when no training entry uses it.

    Of more than `MAX_POPULATION` (``matching: all``) a fixed sample is taken.
    """

    synsets: npt.NDArray[np.int64]  # rows of the lexicon
    held_out: npt.NDArray[np.bool_]
    sources: Ragged

    def __len__(self) -> int:
        return len(self.synsets)

    @classmethod
    def of(cls, entry_synsets: IntArray, entry_sources: Ragged, held_out: IntArray) -> "Population":
        """From each entry's synset and tokenised source, and the entries that are held out."""
        synsets, first = np.unique(entry_synsets, return_index=True)
        if len(synsets) > MAX_POPULATION:
            sample = np.random.default_rng(0).choice(len(synsets), MAX_POPULATION, replace=False)
            synsets, first = synsets[sample], first[sample]
        order = np.argsort(first)
        synsets, first = synsets[order], first[order]
        trained = np.ones(len(entry_synsets), dtype=bool)
        trained[held_out] = False
        seen = np.isin(synsets, entry_synsets[trained])
        return cls(synsets.astype(np.int64), ~seen, entry_sources.take(first))

    def batches(self, batch_size: int, pad_id: int) -> list[EvaluationBatch]:
        """(rows, input ids, attention mask), sorted by length; the same on every process."""
        batches = []
        for rows in sorted_batches(self.sources.lengths, batch_size):
            inputs = padded_inputs(self.sources.rows(rows), pad_id)
            batches.append((torch.from_numpy(rows), inputs["input_ids"], inputs["attention_mask"]))
        return batches
