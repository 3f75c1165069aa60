"""The population over which geometry is measured: the distinct synsets of the entries, as tokenised source texts."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modulant.corpus.batching import sorted_batches
from modulant.corpus.ragged import IntArray, Ragged, padded_inputs
from modulant.lexicon.entries import TEST, TRAINING, VALIDATION

# Distances of all pairs take its square in bytes. No tokenizer's single-token entries come near it.
MAX_POPULATION = 20_000

Rows = npt.NDArray[np.int64]
_NONE: Rows = np.zeros(0, dtype=np.int64)
EvaluationBatch = tuple[Tensor, Tensor, Tensor]  # rows (B,), input ids (B, S), attention mask (B, S)


def held_out_entries(n: int, val_fraction: float, seed: int, test_fraction: float = 0.0) -> tuple[Rows, Rows]:
    """Which of ``n`` entries are for validation, and which for the test; neither is trained on.

    Both come from the end of a seeded permutation: the test entries last, the validation entries before them, at least
    one of each. Without a test part there are no test entries, and the validation entries are last.
    """
    order, n_test, n_held = _ends(n, val_fraction, seed, test_fraction)
    return np.sort(order[n - n_held : n - n_test]), np.sort(order[n - n_test :])


def held_out_sources(sources: Ragged, val_fraction: float, seed: int, test_fraction: float = 0.0) -> tuple[Rows, Rows]:
    """The same where entries with the same source text must not be split.

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
    order, n_test, n_held = _ends(n, val_fraction, seed, test_fraction)
    part = np.zeros(len(number), dtype=np.int8)  # of each group
    if n_test:
        _take(part, TEST, group, order[n - n_test :], n_test)
    _take(part, VALIDATION, group, order[n - n_held :], n_held - n_test)
    return np.flatnonzero(part[group] == VALIDATION), np.flatnonzero(part[group] == TEST)


def _ends(n: int, val_fraction: float, seed: int, test_fraction: float) -> tuple[Rows, int, int]:
    """The permutation, and how many of its last are test entries, and how many held out in all."""
    n_test = max(1, round(n * test_fraction)) if test_fraction else 0
    n_held = max(n_test + 1, round(n * (val_fraction + test_fraction)))
    return np.random.default_rng(seed).permutation(n), min(n_test, n), min(n_held, n)


def _take(part: npt.NDArray[np.int8], value: int, group: IntArray, rows: IntArray, wanted: int) -> None:
    """Give whole groups to a part, those of the last rows first, until no further one fits."""
    sizes, left = np.bincount(group), wanted
    free = [row for row in rows[::-1] if not part[group[row]]]
    for row in free:
        if not part[group[row]] and sizes[group[row]] <= left:
            part[group[row]] = value
            left -= sizes[group[row]]
    if left == wanted and free:  # the groups are all larger than what is wanted
        part[group[free[0]]] = value


@dataclass(frozen=True, eq=False)
class Population:
    """Distinct synsets in the order of the entries, and the part of the split that each is in.

    A synset with a training entry is in the training part, and one with a validation entry, and no training entry, in
    the validation part. Of more than `MAX_POPULATION` (``matching: all``) a fixed sample is taken.
    """

    synsets: npt.NDArray[np.int64]  # rows of the lexicon
    part: npt.NDArray[np.int8]  # 0 training, 1 validation, 2 test
    sources: Ragged

    def __len__(self) -> int:
        return len(self.synsets)

    @cached_property
    def held_out(self) -> npt.NDArray[np.bool_]:
        """Which synsets no training entry uses."""
        return self.part != TRAINING

    @classmethod
    def of(
        cls, entry_synsets: IntArray, entry_sources: Ragged, validation: IntArray, test: IntArray = _NONE
    ) -> "Population":
        """From each entry's synset and tokenised source, and the entries of the validation and the test part."""
        synsets, first = np.unique(entry_synsets, return_index=True)
        if len(synsets) > MAX_POPULATION:
            sample = np.random.default_rng(0).choice(len(synsets), MAX_POPULATION, replace=False)
            synsets, first = synsets[sample], first[sample]
        order = np.argsort(first)
        synsets, first = synsets[order], first[order]
        of_entry = np.zeros(len(entry_synsets), dtype=np.int8)
        of_entry[validation], of_entry[test] = VALIDATION, TEST
        part = np.full(len(synsets), TEST, dtype=np.int8)
        for value in (VALIDATION, TRAINING):
            part[np.isin(synsets, entry_synsets[of_entry == value])] = value
        return cls(synsets.astype(np.int64), part, entry_sources.take(first))

    def batches(self, batch_size: int, pad_id: int) -> list[EvaluationBatch]:
        """(rows, input ids, attention mask), sorted by length; the same on every process."""
        batches = []
        for rows in sorted_batches(self.sources.lengths, batch_size):
            inputs = padded_inputs(self.sources.rows(rows), pad_id)
            batches.append((torch.from_numpy(rows), inputs["input_ids"], inputs["attention_mask"]))
        return batches
