"""What both DataModules are: WordNet matched against a tokenizer, a population to measure, epochs dealt in batches."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt

from datamodules.position import BATCH_SIZE, EpochSampler, Position
from modulant.corpus.entries import Corpus, Tokenizer
from modulant.corpus.population import EvaluationBatch, Population
from modulant.lexicon import Entries, Lexicon, LexiconError


class CorpusDataModule(pl.LightningDataModule, ABC):
    """Owns the corpus and the position in it: ``state_dict()`` tells the epoch and how many of its batches are done."""

    def __init__(self, batch_size: int, val_fraction: float, seed: int, nltk_data: str | None) -> None:
        super().__init__()
        self.batch_size, self.val_fraction, self.seed, self.nltk_data = batch_size, val_fraction, seed, nltk_data
        self.order_seed = seed  # of each epoch's order
        self._corpus: Corpus | None = None
        self._position = Position()

    def _lexicon(self) -> Lexicon:
        try:
            return Lexicon.load(self.nltk_data)
        except LexiconError as error:
            if self.nltk_data is None:
                raise
            raise ValueError(f"data.nltk_data: {error}") from error

    @property
    def corpus(self) -> Corpus:
        assert self._corpus is not None, "setup() comes first"
        return self._corpus

    @property
    def tokenizer(self) -> Tokenizer:
        return self.corpus.tokenizer

    @property
    def entries(self) -> Entries:
        """All entries, in WordNet's order: lemma, synset, token id, definition."""
        return self.corpus.entries

    @property
    def population(self) -> Population:
        """The distinct synsets of the entries: what geometry is measured on."""
        return self.corpus.population

    def population_batches(self) -> list[EvaluationBatch]:
        """(rows, input ids, attention mask), sorted by length; the same on every process."""
        return self.corpus.evaluation_batches()

    def path_distances(self) -> npt.NDArray[np.uint8]:
        """WordNet path distances between all synsets of the population, (P, P) bytes."""
        return self.corpus.path_distances

    def hypernym_chains(self, depth: int) -> npt.NDArray[np.int64]:
        """First hypernyms 1 … depth steps up from each synset of the population, (P, depth), as rows of the population;
        -1 where the chain has ended or that synset is not in it."""
        lexicon, synsets = self.corpus.lexicon, self.population.synsets
        place = np.full(len(lexicon) + 1, -1)  # one more: a chain's own -1
        place[synsets] = np.arange(len(synsets))
        return place[lexicon.taxonomy.hypernym_chains(synsets, depth)]

    def categories(self) -> tuple[npt.NDArray[np.int64], list[str]]:
        """The population's lexicographer categories (P,), and what each number means."""
        lexicon = self.corpus.lexicon
        return lexicon.lexname[self.population.synsets].astype(np.int64), list(lexicon.lexnames)

    @property
    def _place(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _to_cuda(self) -> bool:
        """Whether batches go to a GPU: out of pinned memory they are copied without anybody's waiting."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    @property
    def _shared_size(self) -> int:
        """Examples in a batch over all processes, which share each batch.

        One process that is given as many learns the same. Where gradients of several batches are accumulated, these
        count equally, whatever their tokens, as Lightning has it; that too does not depend on the processes.
        """
        return self.batch_size * self._place[1]

    @abstractmethod
    def _deal(self, epoch: int) -> Sequence[Any]:
        """What an epoch's batches over all processes are made of, in their order."""

    @abstractmethod
    def _per_epoch(self) -> int:
        """The length of what `_deal` returns."""

    def _plan(self) -> dict[str, Any]:
        """What an epoch's deal depends on beside its number."""
        return {
            BATCH_SIZE: self._shared_size,
            "data.seed": self.seed,
            "data.order_seed": self.order_seed,
            "training entries": len(self.corpus.trained),
        }

    def _sampler(self) -> EpochSampler:
        """The training epochs, from the position that was loaded.

        Raises:
            ValueError: a run that stopped in mid-epoch under another plan, or Lightning is about to deal the batches a
                second time.
        """
        trainer = self.trainer
        if trainer is None:
            return EpochSampler(self._deal, self._per_epoch(), lambda: (0, 0))
        total = self._per_epoch()
        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError("trainer.use_distributed_sampler must be false: the DataModule deals the batches itself")
        if trainer.ckpt_path is None:  # a new run, whatever this DataModule did before
            self._position.forget()
        self._position.check(self._plan())
        return EpochSampler(self._deal, total, lambda: self._position.now(trainer, total))

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        if trainer is None:  # nobody trains on this yet
            return {}
        return self._position.state_dict(trainer, self._per_epoch(), self._plan())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._position.load_state_dict(state_dict)
