"""Base class of the DataModules: entries matched to a tokenizer, a population to measure, batches of an epoch."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
from lightning.pytorch.callbacks import GradientAccumulationScheduler

from datamodules.position import BATCH_SIZE, EpochSampler, Position, accumulated
from modulant.corpus.entries import Corpus
from modulant.corpus.forms import Tokenizer
from modulant.corpus.population import EvaluationBatch, Population
from modulant.lexicon import Entries, Lexicon, LexiconError
from modulant.lexicon.entries import SplitBy


class CorpusDataModule(pl.LightningDataModule, ABC):
    """Owns the corpus and the position in it: ``state_dict()`` holds the epoch and its number of finished batches."""

    def __init__(
        self,
        batch_size: int,
        val_fraction: float,
        seed: int,
        nltk_data: str | None,
        split: SplitBy,
        test_fraction: float = 0.0,
    ) -> None:
        super().__init__()
        self.split, self.test_fraction = split, test_fraction
        self.batch_size, self.val_fraction, self.seed, self.nltk_data = batch_size, val_fraction, seed, nltk_data
        self.order_seed = seed  # of the order of each epoch
        self._corpus: Corpus | None = None
        self._position = Position()
        self._saved_split: dict[str, Any] = {}  # of the checkpoint that was loaded
        self._fingerprint: tuple[Corpus, str] | None = None

    def _lexicon(self) -> Lexicon:
        try:
            return Lexicon.load(self.nltk_data)
        except LexiconError as error:
            if self.nltk_data is None:
                raise
            raise ValueError(f"data.nltk_data: {error}") from error

    @property
    def corpus(self) -> Corpus:
        """Entries, definitions and lexicon; available after `setup`."""
        assert self._corpus is not None, "setup() comes first"
        return self._corpus

    @property
    def tokenizer(self) -> Tokenizer:
        """The backbone's tokenizer."""
        return self.corpus.tokenizer

    @property
    def entries(self) -> Entries:
        """All entries, in WordNet's order: lemma, synset, token id, definition."""
        return self.corpus.entries

    @property
    def population(self) -> Population:
        """Distinct synsets of the entries, on which geometry is measured."""
        return self.corpus.population

    def population_batches(self) -> list[EvaluationBatch]:
        """Batches (rows, input ids, attention mask), sorted by length; the same on every rank."""
        return self.corpus.evaluation_batches()

    def path_distances(self) -> npt.NDArray[np.uint8]:
        """WordNet path distances between all synsets of the population, (P, P) bytes."""
        return self.corpus.path_distances

    def hypernym_chains(self, depth: int) -> npt.NDArray[np.int64]:
        """First hypernyms 1 … depth steps above each synset of the population, (P, depth), as rows of the population.

        -1 beyond the end of the chain, and for synsets outside the population.
        """
        lexicon, synsets = self.corpus.lexicon, self.population.synsets
        place = np.full(len(lexicon) + 1, -1)  # the last one is for -1 in a chain
        place[synsets] = np.arange(len(synsets))
        return place[lexicon.taxonomy.hypernym_chains(synsets, depth)]

    def parts_of_speech(self) -> npt.NDArray[np.str_]:
        """Part of speech of each synset of the population (P,): n, v, a, s or r."""
        return self.corpus.pos

    def categories(self) -> tuple[npt.NDArray[np.int64], list[str]]:
        """Lexicographer category of each synset of the population (P,), and the categories' names."""
        lexicon = self.corpus.lexicon
        return lexicon.lexname[self.population.synsets].astype(np.int64), list(lexicon.lexnames)

    @property
    def _rank_and_world_size(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _to_cuda(self) -> bool:
        """Whether batches go to a GPU: copies from pinned memory are asynchronous."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    @property
    def _global_batch_size(self) -> int:
        """Examples in a batch over all ranks, which share each batch.

        One process with this batch size computes the same gradients.
        """
        return self.batch_size * self._rank_and_world_size[1]

    @abstractmethod
    def _epoch_batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch over all ranks, in order: for each what the loader makes a batch from."""

    @abstractmethod
    def _batches_per_epoch(self) -> int:
        """Length of `_epoch_batches`."""

    @abstractmethod
    def _target_tokens(self, batch: Any) -> int:
        """Number of target tokens in one of `_epoch_batches`."""

    def _plan(self) -> dict[str, Any]:
        """Settings that determine the batches of an epoch, besides its number."""
        return {
            BATCH_SIZE: self._global_batch_size,
            "data.seed": self.seed,
            "data.split": self.split,
            "data.order_seed": self.order_seed,
            "training entries": len(self.corpus.trained),
        }

    def _sampler(self) -> EpochSampler:
        """Sampler of the training epochs, starting at the loaded position.

        Raises:
            ValueError: the run stopped in mid-epoch with another plan, or Lightning would shard the batches again.
        """
        trainer = self.trainer
        if trainer is None:
            return EpochSampler(self._epoch_batches, self._batches_per_epoch(), lambda: (0, 0))
        total = self._batches_per_epoch()

        def batches(epoch: int) -> Sequence[Any]:
            # Those of overfit_batches are the same each epoch.
            some = self._epoch_batches(0 if getattr(trainer, "overfit_batches", 0) else epoch)
            if (n := _accumulated_in(trainer, epoch)) == 1:
                return some
            limit = getattr(trainer, "limit_train_batches", 1.0)
            ends = int(total * limit) if isinstance(limit, float) else min(total, limit)
            return accumulated(some, self._target_tokens, n, ends)

        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError("trainer.use_distributed_sampler must be false: the DataModule shards the batches itself")
        if trainer.ckpt_path is None:  # a new run; this DataModule may have been used before
            self._position.reset()
        self._position.check(self._plan())
        return EpochSampler(batches, total, lambda: self._position.current(trainer, total))

    def _evaluated(self, batches: list[Any], limit: str) -> list[list[Any]]:
        """Batches of an evaluation in groups of one per rank, sorted by length; a part is shuffled first.

        A part of the sorted order would hold the shortest texts alone.

        Args:
            limit: the trainer's argument that asks for a part, such as limit_val_batches.
        """
        world = self._rank_and_world_size[1]
        groups = [batches[i : i + world] for i in range(0, len(batches), world)]
        part = getattr(self.trainer, limit, 1.0)
        if part == 0 or (isinstance(part, float) and part == 1.0):
            return groups
        return [groups[i] for i in np.random.default_rng(self.seed).permutation(len(groups))]

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        if trainer is None:  # not used in a training yet
            return {}
        position = self._position.state_dict(trainer, self._batches_per_epoch(), self._plan())
        return {**position, "split": self._split()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position of a checkpoint's run, whose split must be this one.

        Raises:
            ValueError: that run held out other entries, so that some that it was trained on would be held out now.
        """
        self._position.load_state_dict(state_dict)
        plan = {"data.split": "entry", **state_dict["plan"]}  # which checkpoints of earlier versions do not say
        earlier = {key: plan[key] for key in ("data.split", "data.seed", "training entries") if key in plan}
        self._saved_split = {"data.test_fraction": 0.0, **state_dict.get("split", earlier)}
        if self._corpus is not None:
            self._check_split()

    def _split(self) -> dict[str, Any]:
        """What decides which entries are held out, and a fingerprint of these, with the test entries marked."""
        corpus = self.corpus
        if self._fingerprint is None or self._fingerprint[0] is not corpus:
            entries, marked = corpus.entries, set(corpus.test.tolist()) if self.test_fraction else set()
            texts = (
                f"{entries[int(row)].lemma}\t{entries[int(row)].definition}{chr(9) * (int(row) in marked)}\n"
                for row in corpus.held_out
            )
            self._fingerprint = corpus, hashlib.sha256("".join(texts).encode()).hexdigest()
        return {
            "data.split": self.split,
            "data.seed": self.seed,
            "data.val_fraction": self.val_fraction,
            "data.test_fraction": self.test_fraction,
            "training entries": len(corpus.trained),
            "held-out entries": self._fingerprint[1],
        }

    def _check_split(self) -> None:
        saved, now = self._saved_split, self._split()
        changed = [key for key in saved if saved[key] != now.get(key)]
        if not changed or saved.get("held-out entries") == now["held-out entries"]:
            return
        shown = [f"{key} {saved[key]} (now {now[key]})" for key in changed if key != "held-out entries" and key in now]
        raise ValueError(
            f"the run holds out other entries{': it had ' if shown else ''}{', '.join(shown)}; entries that it was "
            "trained on must not become held out: resume it with its own data.split, data.seed, data.val_fraction, "
            "data.test_fraction, data.matching, data.nltk_data and tokenizer"
        )


def _accumulated_in(trainer: pl.Trainer, epoch: int) -> int:
    """Batches that make a step of an epoch."""
    for callback in getattr(trainer, "callbacks", ()):
        if isinstance(callback, GradientAccumulationScheduler):
            return int(callback.get_accumulate_grad_batches(epoch))
    return int(getattr(trainer, "accumulate_grad_batches", 1))
