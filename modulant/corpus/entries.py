"""WordNet's entries for one tokenizer: tokenised, and split into training, validation and test ones.

Both DataModules (the task's and pre-training's) build on this, so both hold out the same words.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import numpy.typing as npt

from modulant.corpus import cache
from modulant.corpus.forms import MAX_TARGET, OF_T5, SourceForm, Tokenizer
from modulant.corpus.population import EvaluationBatch, Population, held_out_entries, held_out_sources
from modulant.corpus.ragged import Ragged
from modulant.lexicon import Entries, Lexicon, kept_entries, matched_pairs
from modulant.lexicon.entries import MIN_DEFINITION, TEST, VALIDATION, Matching, SplitBy
from modulant.reports.wording import counted
from modulant.storage import cache_arrays, read_arrays

EVALUATION_BATCH = 128  # sources without gradients; a constant, so figures do not depend on data.batch_size


_ARRAYS = ("lemma", "synset", "token", "source_tokens", "source_starts", "target_tokens", "target_starts")


@dataclass(frozen=True, eq=False)
class Corpus:
    """WordNet's entries for a tokenizer, tokenised, and the parts that they are split into.

    Where there is no test part, the held-out entries are both the validation and the test entries.
    """

    lexicon: Lexicon
    tokenizer: Tokenizer
    entries: Entries
    sources: Ragged  # "summarize: definition", with the end token; of other families as their `SourceForm` says
    targets: Ragged  # the lemma, with the end token
    validation: npt.NDArray[np.int64]  # rows of entries
    test: npt.NDArray[np.int64]

    @classmethod
    def build(
        cls,
        lexicon: Lexicon,
        tokenizer: Tokenizer,
        val_fraction: float,
        seed: int,
        matching: Matching,
        split: SplitBy = "synset",
        test_fraction: float = 0.0,
        form: SourceForm = OF_T5,
    ) -> "Corpus":
        """Matches WordNet with a tokenizer.

        Args:
            test_fraction: share of the entries in the test part; 0: there is none.
            form: how definitions are read; as a T5 does by default.
            matching: ``single_token`` keeps lemmas of one token, each token once; ``all`` keeps every lemma–definition
                pair.
            split: ``synset`` holds out all entries of a source text or none; ``entry`` draws single entries.

        Raises:
            ValueError: no such matching or split, or too few entries to train on some and hold some out.
        """
        for key, value, known in (("matching", matching, Matching), ("split", split, SplitBy)):
            if value not in get_args(known):
                raise ValueError(f"data.{key} is {value!r}; it must be one of {', '.join(get_args(known))}")

        entries, sources, targets = _tokenised(lexicon, tokenizer, matching, form)
        if len(entries) < 2:
            raise ValueError(
                f"{tokenizer.name_or_path or type(tokenizer).__name__}: {counted(len(entries), 'lemma')} of WordNet "
                f"{'is' if len(entries) == 1 else 'are'} one token "
                "of this tokenizer; it does not fit English words (or use data.matching: all)"
            )
        if split == "synset":
            validation, test = held_out_sources(sources, val_fraction, seed, test_fraction)
        else:
            validation, test = held_out_entries(len(entries), val_fraction, seed, test_fraction)
        said = f"data.val_fraction: {val_fraction}"
        said += f" with data.test_fraction: {test_fraction}" if test_fraction else ""
        if len(validation) + len(test) == len(entries):
            raise ValueError(f"{said} leaves none of {len(entries)} entries to train on")
        corpus = cls(lexicon, tokenizer, entries, sources, targets, validation, test if test_fraction else validation)
        for name, part in (("validation", VALIDATION), ("test", TEST)) if test_fraction else ():
            if not (corpus.population.part == part).any():
                raise ValueError(f"{said} leaves none of {len(corpus.population)} synsets to the {name} part alone")
        return corpus

    @cached_property
    def held_out(self) -> npt.NDArray[np.int64]:
        """Rows of the entries that are not trained on."""
        return np.union1d(self.validation, self.test)

    @cached_property
    def trained(self) -> npt.NDArray[np.int64]:
        """Rows of the entries that are not held out."""
        return np.setdiff1d(np.arange(len(self.entries)), self.held_out)

    @cached_property
    def population(self) -> Population:
        """The distinct synsets of the entries."""
        test = self.test[:0] if self.test is self.validation else self.test
        return Population.of(self.entries.synset, self.sources, self.validation, test)

    @property
    def pos(self) -> npt.NDArray[np.str_]:
        """Part of speech of each synset of the population: n, v, a, s or r."""
        return self.lexicon.pos[self.population.synsets]

    def evaluation_batches(self) -> list[EvaluationBatch]:
        """The population as (rows, input ids, attention mask), sorted by length; the same on every process."""
        return self.population.batches(EVALUATION_BATCH, int(self.tokenizer.pad_token_id))

    @cached_property
    def path_distances(self) -> npt.NDArray[np.uint8]:
        """WordNet path distances between all synsets of the population, (P, P) bytes."""
        return self.lexicon.taxonomy.path_distances(self.population.synsets)


def _tokenised(
    lexicon: Lexicon, tokenizer: Tokenizer, matching: Matching, form: SourceForm
) -> tuple[Entries, Ragged, Ragged]:
    """Entries, and the tokens of their sources and targets; from the cache if possible."""
    settings = matching, *form, MAX_TARGET, MIN_DEFINITION
    file = cache.file_for(lexicon, tokenizer, settings)
    if file is not None and (found := read_arrays(file, _ARRAYS)) is not None:
        lemma, synset, token, *ragged = (found[name] for name in _ARRAYS)
        return Entries(lexicon, lemma, synset, token), Ragged(*ragged[:2]), Ragged(*ragged[2:])

    def encode(texts: list[str]) -> list[list[int]]:
        return form.lemmas(tokenizer, texts)

    entries = kept_entries(lexicon, encode) if matching == "single_token" else matched_pairs(lexicon, encode)
    synsets, of_entry = np.unique(entries.synset, return_inverse=True)
    texts = form.sources(tokenizer, [lexicon.definitions[int(i)] for i in synsets])
    sources = Ragged.of(texts).take(of_entry)
    targets = Ragged.of(form.targets(tokenizer, entries.lemmas))
    if file is not None and len(entries):
        values = (
            entries.lemma,
            entries.synset,
            entries.token,
            sources.tokens,
            sources.starts,
            targets.tokens,
            targets.starts,
        )
        cache_arrays(file, dict(zip(_ARRAYS, values, strict=True)), "the tokenised texts")
    return entries, sources, targets
