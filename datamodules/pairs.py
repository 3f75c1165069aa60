"""Training and evaluation entries as batches: only the numbers of rows pass through a loader."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from datamodules.position import Accumulated
from modulant.corpus.entries import Corpus
from modulant.corpus.masking import Masking
from modulant.corpus.ragged import IntArray, shared_batch, training_batch, without_targets
from modulant.corpus.training_synsets import TrainingSynsets

NOTHING = np.array([-1])  # the rows of a batch that counts nothing


class Rows(Dataset[int]):
    """Numbers of rows; what a batch holds of them is gathered at once, when it is collated."""

    def __init__(self, n: int) -> None:
        self._n = n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, row: int) -> int:
        return int(row)

    def __getitems__(self, rows: Any) -> Any:
        return rows


class Pairs(Rows):
    """Some of the entries."""

    def __init__(self, corpus: Corpus, rows: IntArray) -> None:
        super().__init__(len(rows))
        self._sources, self._targets = corpus.sources.take(rows), corpus.targets.take(rows)
        self._pad_id = int(corpus.tokenizer.pad_token_id)

    def collate(self, rows: Sequence[int]) -> dict[str, Any]:
        index = np.asarray(rows)
        nothing = np.array_equal(index, NOTHING)
        index = np.maximum(index, 0)
        batch = training_batch(self._sources.rows(index), self._targets.rows(index), self._pad_id)
        return without_targets(batch) if nothing else batch


class SharedPairs(Pairs):
    """The same, of batches that several processes share: only this one's part is put together.

    Args:
        batches: where all epochs have the same: a batch then has its ``number`` among them, an int of Python's, which
            stays off the device.
        masking: what hides tokens of a batch's definitions, where that is wanted.
        synsets: where batches are of distinct ones: a batch then has ``synset_rows``, the places of the whole batch's
            synsets among them, a NumPy array, which stays off the device too.
    """

    def __init__(
        self,
        corpus: Corpus,
        rows: IntArray,
        rank: int,
        world: int,
        multiple: int,
        batches: list[IntArray] | None,
        synsets: TrainingSynsets | None,
        masking: Masking | None,
    ) -> None:
        super().__init__(corpus, rows)
        self._synset_row: IntArray | None = None
        if synsets is not None:
            self._synset_row = np.full(len(rows), -1)
            self._synset_row[synsets.entries] = np.repeat(np.arange(len(synsets)), np.diff(synsets.starts))
        self._rank, self._world, self._multiple, self._masking = rank, world, multiple, masking
        self._numbers: IntArray | None = None
        if batches is not None:
            self._numbers = np.empty(len(rows), dtype=np.int64)
            for number, members in enumerate(batches):
                self._numbers[members] = number

    def collate(self, rows: Sequence[int] | Accumulated) -> dict[str, Any]:
        if isinstance(rows, Accumulated):
            return {**self.collate(rows.batch), "factor": rows.factor}
        index = np.asarray(rows)
        sources, targets = self._sources.rows(index), self._targets.rows(index)
        batch = shared_batch(sources, targets, self._pad_id, self._rank, self._world, self._multiple)
        if self._masking is not None:
            batch |= self._masking.batch(sources, index, self._rank, self._world, self._multiple)
        if self._synset_row is not None:
            batch["synset_rows"] = self._synset_row[index]
        return batch if self._numbers is None else {**batch, "number": int(self._numbers[index[0]])}
