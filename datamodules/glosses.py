"""What the bundled backbone is pre-trained on: WordNet's glosses and examples, and nothing else.

Two kinds of batches take turns. *Spans*: span corruption of every synset's definition with its example sentences,
except the synsets of held-out entries. *Pairs*: the task's own form, ``summarize: definition`` → lemma, over synsets
that no kept entry uses, so that the frozen base can answer at all and has still never seen a pair that a modulator will
be trained or tested on.

The held-out entries are those of ``split: entry``, with which `mini` was made. Those of ``split: synset`` are a part of
them, so their glosses are not trained on either, and a backbone made here is good for both.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datamodules.arguments import check_vocabulary
from datamodules.base import CorpusDataModule
from datamodules.epochs import Cooked, as_it_is
from datamodules.position import ResumableLoader
from datamodules.span_corruption import corrupt, noise_mask
from datamodules.unigram import train_unigram
from modulant.backbones.tokenizers import load_tokenizer
from modulant.corpus.batching import batches_per_epoch, epoch_batches, sorted_batches
from modulant.corpus.entries import Corpus
from modulant.corpus.forms import MAX_SOURCE, OF_T5, PREFIX, Tokenizer, encode_batch
from modulant.corpus.ragged import IntArray, Ragged, shared_batch, training_batch
from modulant.lexicon import Lexicon
from modulant.settings import HalfOpenUnitInterval, OpenUnitInterval, PositiveInt, Seed, checked

# What a batch is made of: the texts' rows, and for spans the seeds of their masks. Pairs have no mask.
_Recipe = tuple[IntArray, tuple[int, ...] | None]


class GlossDataModule(CorpusDataModule):
    """Span corruption of WordNet's glosses, mixed with definition → lemma pairs of synsets outside the task.

    Args:
        tokenizer: ``mini``, a folder or hub id; null trains a unigram tokenizer on WordNet.
        vocab_size: of that tokenizer, special tokens and sentinels included.
        batch_size: examples a process: two processes with 128 learn what one with 256 does.
        pair_fraction: share of the batches that are definition -> lemma pairs, of synsets outside the task.
        val_fraction: share of the task's entries that is held out; their glosses are not trained on.
        seed: of the split, the order and the masks; use the task's.
        nltk_data: a folder with a WordNet to read instead of the bundled one.

    Raises:
        ValueError: an argument out of its range, by its key.
    """

    @checked
    def __init__(
        self,
        tokenizer: str | None = None,
        vocab_size: PositiveInt = 16000,
        batch_size: PositiveInt = 256,
        pair_fraction: HalfOpenUnitInterval = 0.5,
        val_fraction: OpenUnitInterval = 0.1,
        seed: Seed = 42,
        nltk_data: str | None = None,
    ) -> None:
        check_vocabulary(tokenizer, vocab_size)
        super().__init__(batch_size, val_fraction, seed, nltk_data, "entry")
        self.tokenizer_name, self.vocab_size, self.pair_fraction = tokenizer, vocab_size, pair_fraction

    def setup(self, stage: str | None = None) -> None:
        if self._corpus is not None:
            return
        lexicon = self._lexicon()
        tokenizer = self._tokenizer(lexicon)
        corpus = Corpus.build(lexicon, tokenizer, self.val_fraction, self.seed, "single_token", self.split)
        self._corpus = corpus
        self._sentinel = int(tokenizer.convert_tokens_to_ids("<extra_id_0>"))
        self._end, self._pad_id = int(tokenizer.eos_token_id), int(tokenizer.pad_token_id)
        glosses = Ragged.of(encode_batch(tokenizer, [_gloss(lexicon, i) for i in range(len(lexicon))]))
        self.span_synsets, self.val_span_synsets = _split(corpus, glosses)
        self.spans, self.val_spans = glosses.take(self.span_synsets), glosses.take(self.val_span_synsets)
        self.pair_synsets, *self.pairs = _free_pairs(lexicon, tokenizer, corpus)

    def _tokenizer(self, lexicon: Lexicon) -> Tokenizer:
        if self.tokenizer_name is not None:
            return load_tokenizer(self.tokenizer_name, key="data.tokenizer")

        def texts() -> Iterator[str]:
            yield from lexicon.definitions
            yield from lexicon.examples
            yield from dict.fromkeys(lexicon.lemmas)
            yield from [PREFIX] * 5000  # the task's prefix, on every source, is worth a piece of its own

        print("training a unigram tokenizer on WordNet, about half a minute …", flush=True)
        return train_unigram(texts(), self.vocab_size)

    def describe(self) -> dict[str, Any]:
        """What the report says of the data."""
        return {
            "task": "span corruption of glosses and examples, and definition → lemma of other synsets",
            "wordnet": self.corpus.lexicon.version,
            "span_texts": len(self.spans),
            "pairs": len(self.pairs[0]),
            "pair_fraction": self.pair_fraction,
            "held_out_entries": len(self.corpus.held_out),
            "vocabulary": len(self.tokenizer),
            "span_tokens_per_epoch": int(self.spans.lengths.sum()),
            "batch_size": self.batch_size,
            "seed": self.seed,
        }

    def _counts(self) -> tuple[int, int]:
        """(batches of spans, batches of pairs) in an epoch: every text of the spans once, and pairs in proportion."""
        spans = batches_per_epoch(len(self.spans), self._global_batch_size)
        share = self.pair_fraction / (1 - self.pair_fraction)
        return spans, round(spans * share) if len(self.pairs[0]) else 0

    def _batches_per_epoch(self) -> int:
        return sum(self._counts())

    def _plan(self) -> dict[str, Any]:
        return {**super()._plan(), "data.pair_fraction": self.pair_fraction}

    def _epoch_batches(self, epoch: int) -> list[_Recipe]:
        n_spans, n_pairs = self._counts()
        spans = epoch_batches(self.spans.lengths, self._global_batch_size, self.seed, epoch)
        pairs: list[IntArray] = []
        while len(pairs) < n_pairs:
            again = len(pairs)  # where there are too few for one draw
            pairs += epoch_batches(self.pairs[0].lengths, self._global_batch_size, self.seed + 1 + again, epoch)
        recipes: list[_Recipe] = [(rows, (self.seed, epoch, i)) for i, rows in enumerate(spans)]
        recipes += [(rows, None) for rows in pairs[:n_pairs]]
        assert len(recipes) == n_spans + n_pairs
        return [recipes[i] for i in np.random.default_rng((self.seed, epoch, n_spans)).permutation(len(recipes))]

    def train_dataloader(self) -> DataLoader[Any]:
        # The recipe takes the place of a batch's indices. As a sampler Lightning would replace it for overfit_batches.
        return ResumableLoader(
            Cooked(self.cook), batch_sampler=self._sampler(), collate_fn=as_it_is, pin_memory=self._to_cuda
        )

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """Span corruption of held-out glosses, and the task on held-out entries; all of both on every process."""
        spans = [
            self.batch_of_spans(self.val_spans.rows(rows), np.random.default_rng((self.seed, i)))
            for i, rows in enumerate(sorted_batches(self.val_spans.lengths, self.batch_size))
        ]
        held_out = self.corpus.held_out
        sources, targets = self.corpus.sources.take(held_out), self.corpus.targets.take(held_out)
        pairs = [
            training_batch(sources.rows(rows), targets.rows(rows), self._pad_id)
            for rows in sorted_batches(sources.lengths, self.batch_size)
        ]
        loaders = []
        for batches in (spans, pairs):  # every process has all of them, so that groups are only an order here
            ready = [batch for group in self._evaluated(batches, "limit_val_batches") for batch in group]
            loaders.append(DataLoader(_Ready(ready), batch_size=None))
        return loaders

    def batch_of_spans(self, texts: list[Any], rng: np.random.Generator) -> dict[str, Tensor]:
        """Some texts, corrupted anew."""
        return training_batch(*self._corrupted(texts, rng), self._pad_id)

    def _corrupted(self, texts: list[Any], rng: np.random.Generator) -> tuple[list[Any], list[Any]]:
        both = [corrupt(text, noise_mask(len(text), rng), self._sentinel, self._end) for text in texts]
        return [source for source, _ in both], [target for _, target in both]

    def _target_tokens(self, batch: _Recipe) -> int:
        rows, seeds = batch
        if seeds is None:
            return int(self.pairs[1].lengths[rows].sum())
        return int(self._span_targets[self.spans.lengths[rows]].sum())

    @cached_property
    def _span_targets(self) -> IntArray:
        """Number of target tokens by a text's length, which determines the numbers of hidden tokens and of spans."""
        lengths = np.unique(self.spans.lengths)
        targets = self._corrupted([np.zeros(n, dtype=np.int64) for n in lengths], np.random.default_rng(0))[1]
        table = np.zeros(lengths.max() + 1, dtype=np.int64)
        table[lengths] = [len(target) for target in targets]
        return table

    def cook(self, recipe: _Recipe) -> dict[str, Any]:
        """This process's part of a recipe's batch; the same recipe gives the same batch.

        The masks of the whole batch are drawn on every process: they are one sequence of draws.
        """
        rows, seeds = recipe
        if seeds is not None:
            sources, targets = self._corrupted(self.spans.rows(rows), np.random.default_rng(seeds))
        else:
            sources, targets = (texts.rows(rows) for texts in self.pairs)
        return shared_batch(sources, targets, self._pad_id, *self._rank_and_world_size)


class _Ready(Dataset[dict[str, Tensor]]):
    """Batches that are made already."""

    def __init__(self, batches: list[dict[str, Tensor]]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self._batches[index]


def _gloss(lexicon: Lexicon, synset: int) -> str:
    """A definition with its examples."""
    return "; ".join([lexicon.definitions[synset], *lexicon.examples_of(synset)])


def _split(corpus: Corpus, glosses: Ragged) -> tuple[IntArray, IntArray]:
    """Synsets whose glosses are trained on, and those of held-out entries.

    A held-out entry's synset is left out even where a training entry shares it: its examples may hold the very lemma.
    So is every synset with the same definition as one of these.
    """
    lexicon = corpus.lexicon
    hidden = np.unique(corpus.entries.synset[corpus.held_out])
    texts = {lexicon.definitions[int(i)] for i in hidden}
    same = np.array([i for i, text in enumerate(lexicon.definitions) if text in texts])
    readable = np.flatnonzero((glosses.lengths > 1) & (glosses.lengths < MAX_SOURCE))
    return np.setdiff1d(readable, same), np.intersect1d(readable, hidden)


def _free_pairs(lexicon: Lexicon, tokenizer: Tokenizer, corpus: Corpus) -> tuple[IntArray, Ragged, Ragged]:
    """Synset, source and target of every lemma of every synset that no kept entry uses, by itself or by its text."""
    used = {lexicon.definitions[int(i)] for i in np.unique(corpus.entries.synset)}
    free = np.array([i for i, text in enumerate(lexicon.definitions) if text not in used], dtype=np.int64)
    sources = Ragged.of(OF_T5.sources(tokenizer, [lexicon.definitions[int(i)] for i in free]))
    lemmas = [lexicon.lemmas_of(int(i)) for i in free]
    which = np.repeat(np.arange(len(free)), [len(some) for some in lemmas])
    targets = OF_T5.targets(tokenizer, [lemma for some in lemmas for lemma in some])
    return free[which], sources.take(which), Ragged.of(targets)
