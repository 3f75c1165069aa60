"""The task: given a definition, name the lemma. And the prompts that a trained model is asked."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from datamodules.arguments import check_fractions, read_prompts
from datamodules.asked import asked, prompts_loader
from datamodules.base import CorpusDataModule
from datamodules.pairs import NOTHING, Pairs, SharedPairs
from datamodules.position import ResumableLoader
from modulant.backbones.loading import read_config
from modulant.backbones.tokenizers import load_tokenizer
from modulant.corpus.batching import (
    batches_per_epoch,
    epoch_batches,
    real_token_share,
    sorted_batches,
    synset_batches,
)
from modulant.corpus.entries import Corpus
from modulant.corpus.forms import OF_T5, SourceForm, Tokenizer, source_form
from modulant.corpus.masking import Masking
from modulant.corpus.ragged import IntArray, padded_inputs
from modulant.corpus.training_synsets import TrainingSynsets
from modulant.lexicon.entries import TEST, VALIDATION, Matching, SplitBy
from modulant.settings import HalfOpenUnitInterval, NonNegativeInt, OpenUnitInterval, PositiveInt, Seed, Share, checked


class WordNetDataModule(CorpusDataModule):
    """Definition → lemma pairs of WordNet for the backbone's own tokenizer.

    The source text of a T5 is ``summarize: `` and the definition, of other families the definition alone; the target is
    the lemma, of a causal model as it follows ``, in one word:``. A seeded permutation holds out ``val_fraction`` of
    the pairs for validation, and ``test_fraction`` for the test. Training batches hold examples of similar length,
    drawn anew each epoch; a resumed run takes the very next batch.

    Args:
        backbone: whose tokenizer to use; the command line fills it in from the model.
        batch_size: examples a process: two processes with 8 learn what one with 16 does.
        val_fraction: share of the entries that is held out. With a test part it is for validation alone.
        matching: ``single_token`` keeps lemmas of one token, each once; ``all`` keeps every pair of WordNet.
        seed: of the split and of each epoch's order.
        num_workers: processes that assemble batches; assembling is cheap, so none is usually fastest.
        prompts: for predict: a text file, a list, or ``-`` for standard input; null: held-out entries. A file has a
            prompt a line; at a terminal ``-`` is a conversation. A prompt is a definition; the task's prefix is put
            before it where it lacks that.
        nltk_data: a folder with a WordNet to read instead of the bundled one.
        order_seed: of each epoch's order alone, for several seeds on one split; null: seed.
        pad_to_multiple_of: rounds a batch's lengths up: fewer shapes, for CUDA graphs, and more padding.
        regroup: draw anew which examples share a batch; null: true, unless the model has a cache. Each epoch does so.
        split: what is held out whole: synset, or entry, which is the source's and leaks. By entry, a definition with
            two lemmas may be trained on with one of them and held out with the other.
        near_pairs: for objectives on synsets: batches of distinct ones, this share beside a hypernym; null: of entries.
            Pairs are drawn anew each epoch, as many as have a free neighbour; one lemma of each synset is drawn too. Of
            fewer synsets than ``batch_size`` a batch holds all.
        test_fraction: share of the entries that is held out for the test alone; 0: none. Choose by figures of
            relational/validation, and report those of relational/held_out, whose pairs are then the test's.
        mask_share: share of a definition's tokens that is hidden, for an encoder's masked-language-model loss; null:
            none. A function of the batch: whoever makes it again hides the same.

    Raises:
        ValueError: an argument out of its range, by its key.
    """

    @checked
    def __init__(
        self,
        backbone: str | None = None,
        batch_size: PositiveInt = 32,
        val_fraction: OpenUnitInterval = 0.1,
        matching: Matching = "single_token",
        seed: Seed = 42,
        num_workers: NonNegativeInt = 0,
        prompts: str | list[str] | None = None,
        nltk_data: str | None = None,
        order_seed: Seed | None = None,
        pad_to_multiple_of: PositiveInt = 1,
        regroup: bool | None = None,
        split: SplitBy = "synset",
        near_pairs: Share | None = None,
        test_fraction: HalfOpenUnitInterval = 0.0,
        mask_share: OpenUnitInterval | None = None,
    ) -> None:
        check_fractions(val_fraction, test_fraction)
        super().__init__(batch_size, val_fraction, seed, nltk_data, split, test_fraction)
        if order_seed is not None:
            self.order_seed = order_seed
        self.backbone, self.matching, self.num_workers = backbone or "mini", matching, num_workers
        self.pad_to_multiple_of = pad_to_multiple_of
        self.regroup = regroup is None or regroup
        self.near_pairs, self.mask_share = near_pairs, mask_share
        self.prompts: Iterable[str] | None = read_prompts(prompts)
        self._only_asked = False

    def setup(self, stage: str | None = None) -> None:
        if stage == "predict":  # WordNet takes seconds, and whoever brings prompts may never need it
            self._only_asked = True
        elif self._corpus is None:
            self._build()

    def _build(self) -> None:
        self._corpus = Corpus.build(
            self._lexicon(),
            self.tokenizer,
            self.val_fraction,
            self.seed,
            self.matching,
            self.split,
            self.test_fraction,
            self.form,
        )
        trained = self._corpus.trained
        self._train_lengths = self._corpus.sources.lengths[trained]
        self._target_lengths = self._corpus.targets.lengths[trained]

    @cached_property
    def training_synsets(self) -> TrainingSynsets:
        """Distinct synsets of the training entries, which objectives on relations train on."""
        return TrainingSynsets.of(self.corpus)

    @property
    def corpus(self) -> Corpus:
        if self._corpus is None and self._only_asked:
            self._build()
            self._check_split()
        return super().corpus

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.backbone)

    @cached_property
    def form(self) -> SourceForm:
        """How the backbone reads definitions and lemmas."""
        try:
            config = read_config(self.backbone)
        except ValueError:  # a T5's tokenizer alone
            return OF_T5
        return source_form(config, self.tokenizer)

    def describe(self) -> dict[str, Any]:
        """What the report says of the data."""
        corpus, lengths = self.corpus, self.corpus.sources.lengths
        world = self._rank_and_world_size[1]
        # Special tokens, of a T5 the end token, are not counted.
        special = 0 if self.form.question else self.tokenizer.num_special_tokens_to_add()
        parts = [part for batch in self._epoch_batches(0) for rank in range(world) if len(part := batch[rank::world])]
        names = self.form.names_lemmas
        share_of_targets = real_token_share(self._target_lengths, parts, self.pad_to_multiple_of)
        return {
            "task": "definition → lemma" if names else "definitions",
            "wordnet": corpus.lexicon.version,
            "nltk_data": self.nltk_data,
            "matching": self.matching,
            "split": self.split,
            "tokenizer": self.backbone,
            "entries": len(corpus.entries),
            "train_entries": len(corpus.trained),
            "held_out_entries": len(corpus.held_out),
            "synsets": len(self.population),
            "held_out_synsets": int(self.population.held_out.sum()),
            **self._parts(),
            "mean_source_tokens": float(lengths.mean() - special),
            "max_source_tokens": int(lengths.max() - special),
            "batch_size": self.batch_size,
            "real_token_share": real_token_share(self._train_lengths, parts, self.pad_to_multiple_of),
            **({"real_target_token_share": share_of_targets} if names else {}),
            "seed": self.seed,
            "order_seed": self.order_seed,
            "regroup": self.regroup,
            "near_pairs": self.near_pairs,
            "mask_share": self.mask_share,
            **({} if self.near_pairs is None else {"training_synsets": len(self.training_synsets)}),
        }

    def _parts(self) -> dict[str, Any]:
        """Sizes of the validation and the test part, where there is one."""
        if not self.test_fraction:
            return {}
        corpus, part = self.corpus, self.population.part
        return {
            "test_fraction": self.test_fraction,
            "validation_entries": len(corpus.validation),
            "test_entries": len(corpus.test),
            "validation_synsets": int((part == VALIDATION).sum()),
            "test_synsets": int((part == TEST).sum()),
        }

    def examples(self, n: int) -> dict[str, Any]:
        """At most n test entries, spread evenly, the same each time: inputs, ``prompts`` and ``lemmas``."""
        test = self.corpus.test
        rows = test[np.linspace(0, len(test) - 1, min(n, len(test))).astype(int)]
        inputs = padded_inputs(self.corpus.sources.rows(rows), int(self.tokenizer.pad_token_id))
        prompts = [self.entries.definitions[int(row)] for row in rows]
        return {**inputs, "prompts": prompts, "lemmas": [self.entries.lemmas[int(row)] for row in rows]}

    def _epoch_batches(self, epoch: int) -> list[IntArray]:
        """Batches, as positions in the training entries."""
        if self.regroup:
            return self._grouped(epoch)
        batches = self._run_batches
        return [batches[i] for i in np.random.default_rng((self.order_seed, epoch)).permutation(len(batches))]

    def _grouped(self, epoch: int) -> list[IntArray]:
        if self.near_pairs is not None:
            own, size = self.training_synsets, self._global_batch_size
            entries = own.drawn_entries(self.order_seed, epoch)
            drawn = synset_batches(own.sources.lengths, own.edges, size, self.near_pairs, self.order_seed, epoch)
            return [entries[rows] for rows in drawn]
        return epoch_batches(self._train_lengths, self._global_batch_size, self.order_seed, epoch, self._target_lengths)

    @property
    def _run_batches(self) -> list[IntArray]:
        """Those of each epoch of a run that does not regroup; a batch's place here is its number."""
        return self._grouped(0)

    def batch_shapes(self) -> list[tuple[int, int]]:
        """Examples and padded tokens of this process's part of each of a run's batches, by their numbers.

        Raises:
            ValueError: an epoch's batches are others than the last one's.
        """
        if self.regroup:
            raise ValueError("model.cache: its batches must keep their members; set data.regroup to false")
        pairs = self._training_pairs()
        shapes = (pairs.collate(rows.tolist())["input_ids"].shape for rows in self._run_batches)
        return [(examples, longest) for examples, longest in shapes]

    def _target_tokens(self, batch: IntArray) -> int:
        if self.near_pairs is not None:  # a correlation is of a batch: a step's is the mean over its synsets
            return len(batch)
        return int(self._target_lengths[batch].sum())

    def _batches_per_epoch(self) -> int:
        examples = len(self._train_lengths) if self.near_pairs is None else len(self.training_synsets)
        return batches_per_epoch(examples, self._global_batch_size)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self._training_pairs(), self._sampler())

    def _training_pairs(self) -> SharedPairs:
        batches = None if self.regroup else self._run_batches
        synsets = None if self.near_pairs is None else self.training_synsets
        return SharedPairs(
            self.corpus,
            self.corpus.trained,
            *self._rank_and_world_size,
            self.pad_to_multiple_of,
            batches,
            synsets,
            self.masking,
        )

    @cached_property
    def masking(self) -> Masking | None:
        """What hides tokens of training definitions; None where ``mask_share`` is."""
        return None if self.mask_share is None else Masking.of(self.tokenizer, self.mask_share, self.order_seed)

    def _plan(self) -> dict[str, Any]:
        return {
            **super()._plan(),
            "data.regroup": self.regroup,
            "data.near_pairs": self.near_pairs,
            "data.mask_share": self.mask_share,
        }

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation entries, each on exactly one process.

        Every process gets as many batches, for Lightning's hooks and the collectives in them are called once a batch:
        where they do not go round, the last is one entry without a target, which counts nowhere.
        """
        return self._evaluation_loader(self.corpus.validation, "limit_val_batches")

    def test_dataloader(self) -> DataLoader[Any]:
        """The test entries; without a test part the validation entries again."""
        return self._evaluation_loader(self.corpus.test, "limit_test_batches")

    def _evaluation_loader(self, rows: IntArray, limit: str) -> DataLoader[Any]:
        batches = sorted_batches(self.corpus.sources.lengths[rows], self.batch_size)
        rank = self._rank_and_world_size[0]
        own = [group[rank] if rank < len(group) else NOTHING for group in self._evaluated(batches, limit)]
        return self._loader(Pairs(self.corpus, rows), own)

    def predict_dataloader(self) -> DataLoader[Any]:
        """The prompts; without any the definitions of the test entries."""
        texts = asked(self.prompts)
        if texts is None:
            definitions = self.entries.definitions
            texts = [definitions[int(i)] for i in self.corpus.test]
        return prompts_loader(texts, self.batch_size, self._encoded)

    def _encoded(self, texts: list[str]) -> dict[str, Any]:
        rows = [np.asarray(row) for row in self.form.prompts(self.tokenizer, texts)]
        inputs = padded_inputs(rows, int(self.tokenizer.pad_token_id))
        return {**inputs, "prompts": texts}

    def _loader(self, pairs: Pairs, batch_sampler: Any) -> DataLoader[Any]:
        return ResumableLoader(
            pairs,
            batch_sampler=batch_sampler,
            collate_fn=pairs.collate,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=self._to_cuda,
        )
