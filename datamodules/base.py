"""Base class of WordNet's DataModules: entries matched to a tokenizer, a population to measure."""

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.epochs import EpochDataModule
from modulant.corpus.entries import Corpus
from modulant.corpus.forms import Tokenizer
from modulant.corpus.population import EvaluationBatch, Population
from modulant.lexicon import Entries, Lexicon, LexiconError
from modulant.lexicon.entries import SplitBy


class CorpusDataModule(EpochDataModule):
    """Owns the corpus, and a split that a resumed run must keep."""

    def __init__(
        self,
        batch_size: int,
        val_fraction: float,
        seed: int,
        nltk_data: str | None,
        split: SplitBy,
        test_fraction: float = 0.0,
    ) -> None:
        super().__init__(batch_size, seed)
        self.split, self.test_fraction = split, test_fraction
        self.val_fraction, self.nltk_data = val_fraction, nltk_data
        self._corpus: Corpus | None = None
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

    def content(self) -> tuple[object, ...] | None:
        """All that the population and its relations follow from, for `content_key`; None of a user-supplied class."""
        if type(self).__module__.partition(".")[0] != __package__:
            return None
        population = self.population
        sources = population.sources.tokens, population.sources.starts
        return self.corpus.lexicon.digest, population.synsets, population.part, *sources, self.tokenizer.eos_token_id

    def _plan(self) -> dict[str, Any]:
        return {**super()._plan(), "data.split": self.split, "training entries": len(self.corpus.trained)}

    def state_dict(self) -> dict[str, Any]:
        position = super().state_dict()
        return {**position, "split": self._split()} if position else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position of a checkpoint's run, whose split must be this one.

        Raises:
            ValueError: that run held out other entries, so that some that it was trained on would be held out now.
        """
        super().load_state_dict(state_dict)
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
