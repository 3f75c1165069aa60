"""Any text as windows of tokens, for a language model."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from datamodules.arguments import (
    BPE,
    BYTES,
    SMALLEST_BPE,
    check_corpus,
    check_fractions,
    check_text_vocabulary,
    check_windows,
    read_prompts,
)
from datamodules.asked import asked, prompts_loader
from datamodules.epochs import Cooked, EpochDataModule, as_it_is
from datamodules.position import ResumableLoader
from datamodules.text.documents import Hub, Source, open_source
from datamodules.text.preparing import prepare, prepared
from datamodules.text.shards import PARTS, Recipe, Shards
from datamodules.text.tokenizer import TextTokenizer
from datamodules.text.windows import NOTHING, Windows, epoch_order
from modulant.corpus.batching import batches_per_epoch
from modulant.corpus.ragged import IntArray
from modulant.settings import HalfOpenUnitInterval, OpenUnitInterval, PositiveInt, Seed, checked


class TextDataModule(EpochDataModule):
    """Windows of ``context`` predictions over any text: WordNet's glosses, the Bible, files, a dataset of the hub.

    Documents are tokenised once, into memory-mapped files of the user's cache. A hash of each document, with the seed,
    holds out ``val_fraction`` of them for validation and ``test_fraction`` for the test; repeated ones are dropped.
    Each epoch is a permutation of the windows that follows from the seed and the epoch alone, whatever is trained on
    them; a resumed run takes the very next batch.

    Args:
        corpus: ``wordnet``, ``kjv``, a file or folder of text, JSON lines or Parquet, or a hub id.
        tokenizer: ``bytes``, ``bpe`` (trained on the training part), or a byte-level one: a folder or hub id.
        vocab_size: ids of ``bpe``, the mark between documents included. Of little text there are fewer.
        context: tokens that a window predicts.
        batch_tokens: tokens a process predicts in a batch: two processes with 4096 learn what one with 8192 does.
        val_fraction: share of the documents that is held out for validation.
        test_fraction: share of the documents that is held out for the test; 0: none.
        seed: of the split and of each epoch's order.
        order_seed: of each epoch's order alone, for several seeds on one split; null: seed.
        column: of JSON lines, Parquet and the hub: the key that holds the text.
        max_documents: how many documents are read; null: all.
        hub_subset: configuration of a dataset of the hub.
        hub_split: split of a dataset of the hub that documents are taken from.
        hub_revision: branch, tag or commit of a dataset of the hub.
        prompts: for predict: a text file, a list, or ``-`` for standard input; null: a document's beginning. A file has
            a prompt a line.

    Raises:
        ValueError: an argument out of its range, by its key, or a corpus that is not there.
    """

    @checked
    def __init__(
        self,
        corpus: str = "wordnet",
        tokenizer: str = "bpe",
        vocab_size: PositiveInt = 1024,
        context: PositiveInt = 256,
        batch_tokens: PositiveInt = 8192,
        val_fraction: OpenUnitInterval = 0.05,
        test_fraction: HalfOpenUnitInterval = 0.05,
        seed: Seed = 42,
        order_seed: Seed | None = None,
        column: str = "text",
        max_documents: PositiveInt | None = None,
        hub_subset: str | None = None,
        hub_split: str = "train",
        hub_revision: str | None = None,
        prompts: str | list[str] | None = None,
    ) -> None:
        check_fractions(val_fraction, test_fraction)
        check_windows(context, batch_tokens)
        check_text_vocabulary(tokenizer, vocab_size)
        check_corpus(corpus)
        super().__init__(batch_tokens // context, seed)
        if order_seed is not None:
            self.order_seed = order_seed
        self.corpus_name, self.context, self.batch_tokens = corpus, context, batch_tokens
        self.column, self.hub = column, Hub(hub_subset, hub_split, hub_revision)
        self.recipe = Recipe(tokenizer, vocab_size, val_fraction, test_fraction, seed, max_documents)
        self.prompts: Iterable[str] | None = read_prompts(prompts)
        self._shards: Shards | None = None
        self._windows: dict[str, Windows] = {}
        self._saved: dict[str, Any] = {}  # what the checkpoint that was loaded says of its text

    def prepare_data(self) -> None:
        """Tokenise the corpus, unless that is done; Lightning calls it in one process of each machine."""
        if self._shards is None:
            self._shards = prepare(self._source(), self.recipe, self.corpus_name)

    def find(self) -> bool:
        """Open what is prepared, if it is; nothing is written."""
        if self._shards is None:
            self._shards = prepared(self._source(), self.recipe)
        return self._shards is not None

    def _source(self) -> Source:
        return open_source(self.corpus_name, self.column, self.hub)

    @property
    def expected_vocabulary(self) -> int | None:
        """Number of ids before anything is prepared, of little text fewer; None of a pretrained tokenizer."""
        return {BPE: self.recipe.vocab_size, BYTES: SMALLEST_BPE}.get(self.recipe.tokenizer)

    def setup(self, stage: str | None = None) -> None:
        """Open what is prepared.

        Raises:
            ValueError: a part holds less than ``context`` predictions, or the checkpoint is of another text.
        """
        self.prepare_data()
        for part in PARTS if self.recipe.test_fraction else PARTS[:2]:
            if (predicted := self.windows(part).predicted) < self.context:
                raise ValueError(
                    f"data.context is {self.context}, and the part {part!r} of data.corpus {self.corpus_name} has "
                    f"{predicted:,} tokens to predict; choose a context of at most that, or a larger share"
                )
        self._check_text()

    @property
    def shards(self) -> Shards:
        """The prepared corpus; available after `setup`."""
        assert self._shards is not None, "setup() comes first"
        return self._shards

    @property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer, with the counts, ranks and frequencies of the training part's tokens."""
        return self.shards.tokenizer

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer's files are, to copy them beside a model: see `TextTokenizer.save`."""
        return self.shards.folder

    def windows(self, part: str) -> Windows:
        """The windows of a part: train, val or test."""
        if part not in self._windows:
            tokenizer = self.tokenizer
            tokens = self.shards.tokens(part)
            self._windows[part] = Windows(tokens, self.context, tokenizer.byte_lengths, tokenizer.end)
        return self._windows[part]

    def describe(self) -> dict[str, Any]:
        """What the report says of the data."""
        return {
            "task": "next token",
            "corpus": self.corpus_name,
            "tokenizer": self.recipe.tokenizer,
            "tokenizer_sha256": self.tokenizer.sha256,
            "vocabulary": self.tokenizer.vocab_size,
            **self.shards.describe(),
            "context": self.context,
            "batch_tokens": self.batch_tokens,
            "windows_per_epoch": len(self.windows("train")),
            "val_fraction": self.recipe.val_fraction,
            "test_fraction": self.recipe.test_fraction,
            "seed": self.seed,
            "order_seed": self.order_seed,
            "max_documents": self.recipe.max_documents,
        }

    def _epoch_batches(self, epoch: int) -> Any:
        return epoch_order(len(self.windows("train")), self._global_batch_size, self.order_seed, epoch)

    def _batches_per_epoch(self) -> int:
        return batches_per_epoch(len(self.windows("train")), self._global_batch_size)

    def _target_tokens(self, batch: IntArray) -> int:
        return self.windows("train").targets(batch)

    def train_dataloader(self) -> DataLoader[Any]:
        windows, share = self.windows("train"), self._rank_and_world_size
        cooked = Cooked(lambda rows: windows.shared(rows, *share))
        return ResumableLoader(cooked, batch_sampler=self._sampler(), collate_fn=as_it_is, pin_memory=self._to_cuda)

    def val_dataloader(self) -> DataLoader[Any]:
        """All of the validation part, each window on exactly one process.

        Every process gets as many batches, as collectives in Lightning's hooks need: where they do not go round, the
        last is one window without predictions, which counts nowhere.
        """
        return self._evaluation_loader("val", "limit_val_batches")

    def test_dataloader(self) -> DataLoader[Any]:
        """All of the test part; without one the validation part again."""
        return self._evaluation_loader("test" if self.recipe.test_fraction else "val", "limit_test_batches")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The prompts; without any the empty one."""
        texts = asked(self.prompts)
        return prompts_loader([""] if texts is None else texts, 1, lambda some: {"prompts": some})

    def _evaluation_loader(self, part: str, limit: str) -> DataLoader[Any]:
        windows, rank = self.windows(part), self._rank_and_world_size[0]
        groups = self._evaluated(windows.batches(self.batch_size), limit)
        own: list[Any] = [group[rank] if rank < len(group) else NOTHING for group in groups]
        return DataLoader(Cooked(windows.batch), batch_sampler=own, collate_fn=as_it_is, pin_memory=self._to_cuda)

    def _plan(self) -> dict[str, Any]:
        return {**super()._plan(), "data.context": self.context}

    def state_dict(self) -> dict[str, Any]:
        position = super().state_dict()
        return {**position, "text": self._text()} if position else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position of a checkpoint's run, whose text must be this one.

        Raises:
            ValueError: that run has another text, split or tokenizer.
        """
        super().load_state_dict(state_dict)
        self._saved = dict(state_dict["text"])
        if self._shards is not None:
            self._check_text()

    def _text(self) -> dict[str, Any]:
        """What determines the ids of each part; the last two by their contents."""
        recipe = self.recipe
        return {
            "data.corpus": self.corpus_name,
            "data.tokenizer": recipe.tokenizer,
            "data.vocab_size": recipe.vocab_size,
            "data.seed": self.seed,
            "data.val_fraction": recipe.val_fraction,
            "data.test_fraction": recipe.test_fraction,
            "data.max_documents": recipe.max_documents,
            "tokenizer": self.tokenizer.sha256[:12],
            "text": self.shards.key[:12],
        }

    def _check_text(self) -> None:
        saved, now = self._saved, self._text()
        if not saved or (saved["text"], saved["tokenizer"]) == (now["text"], now["tokenizer"]):
            return
        changed = ", ".join(f"{key} {saved[key]} (now {now[key]})" for key in saved if saved[key] != now.get(key))
        raise ValueError(
            f"the run was trained on other tokens: it had {changed}; documents that it was trained on must not become "
            "held out, and ids must mean the same: resume it with its own text, split and tokenizer"
        )
