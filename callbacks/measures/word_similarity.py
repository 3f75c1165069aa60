"""Human judgement at the end of a run: does the encoder agree with people's ratings of word pairs, before and after?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L

from callbacks.interfaces import OfModulated, modulated
from callbacks.logs import log_now
from callbacks.measures.representations import evaluating
from modulant.corpus.forms import OF_T5
from modulant.corpus.word_pairs import SENSES, SensePairs, gensim_word_pairs, read_sense_pairs
from modulant.settings import Interval, NonNegativeInt, checked
from modulators.similarity import mean_embedding, word_similarity


class WordSimilarity(OfModulated):
    """Spearman's ρ between people's ratings and the largest cosine over two words' senses, base and modulated.

    Measured once, when a fit ends, on rank 0; `modulators.word_similarity` says what is computed, and
    ``probe.py similarity`` does the same for a run that is there. Logged as ``similarity/<file>/before``, ``…/after``,
    ``…/change`` with intervals, and ``similarity/<file>/untrained/…``.

    Args:
        files: text files of three columns: word, word, rating; ``gensim``: SimLex-999 and WordSim-353 of that package;
            null: not measured.
        senses: of a word, at most, in WordNet's order; 0: all.
        bootstrap: resamplings of the pairs behind each 95% interval.
    """

    @checked
    def __init__(
        self,
        files: list[str] | Literal["gensim"] | None = None,
        senses: NonNegativeInt = SENSES,
        bootstrap: Annotated[int, Interval(minimum=40)] = 1000,
    ) -> None:
        self.files, self.senses, self.bootstrap = files, senses, bootstrap
        self._pairs: Sequence[SensePairs] = ()
        self._figures: dict[str, float] = {}

    @property
    def state_key(self) -> str:
        return "WordSimilarity"

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self._figures}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._figures = dict(state_dict["figures"])

    def summary(self) -> dict[str, float]:
        """For the report: figure → value; empty where nothing was measured."""
        return self._figures

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the files before anything is trained.

        Raises:
            ValueError: one cannot be read, or is of fewer than three usable pairs; no gensim; no WordNet.
        """
        if self.files is None or not trainer.is_global_zero:
            return
        corpus = getattr(getattr(trainer, "datamodule", None), "corpus", None)
        if corpus is None:
            raise ValueError("similarity.files: words are looked up in a WordNetDataModule's WordNet; the run has none")
        try:
            paths = gensim_word_pairs() if self.files == "gensim" else [Path(file) for file in self.files]
            self._pairs = read_sense_pairs(paths, corpus.lexicon, self.senses)
        except ValueError as error:
            raise ValueError(f"similarity.files: {error}") from error

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        handle = modulated(pl_module).handle
        if not self._pairs or handle is None:
            return
        data: Any = getattr(trainer, "datamodule", None)
        corpus, form = data.corpus, getattr(data, "form", OF_T5)
        embed = mean_embedding(modulated(pl_module).encode, data.tokenizer, pl_module.device, form)

        def before(texts: list[str]) -> Any:
            with handle.disabled():
                return embed(texts)

        trained = corpus.entries.synset[corpus.trained].tolist()
        with evaluating(pl_module), trainer.precision_plugin.forward_context():
            found = word_similarity(self._pairs, before, embed, trained, self.bootstrap)
        self._figures = {f"similarity/{key}": value for key, value in found.items() if value == value}
        log_now(trainer, self._figures)
