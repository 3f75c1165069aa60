"""A corpus as token ids on disk: a memory-mapped file a part, keyed by what determines its contents.

A part is one stream of ids, with the mark between texts before each document and behind the last. A hash of a
document's text and the seed says which part it is in: it stays there when other documents come and go.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.arguments import BPE
from datamodules.text.documents import Source
from datamodules.text.tokenizer import TextTokenizer, make_tokenizer

VERSION = 1  # of what is written; one more whenever it changes
PARTS = ("train", "val", "test")
META = "meta.json"  # written last: where it is, all is


@dataclass(frozen=True)
class Recipe:
    """What determines the files, besides the corpus.

    Attributes:
        tokenizer: ``bytes``, ``bpe``, or a pretrained one.
        vocab_size: of ``bpe``.
        val_fraction: share of the documents for validation.
        test_fraction: share of the documents for the test.
        seed: of the split.
        max_documents: how many are read; None: all.
    """

    tokenizer: str
    vocab_size: int
    val_fraction: float
    test_fraction: float
    seed: int
    max_documents: int | None = None


@dataclass(frozen=True)
class Tally:
    """What has been written: per part numbers of documents, of their bytes, and of tokens, marks included."""

    read: int = 0  # documents, repeated ones included
    documents: tuple[int, ...] = (0, 0, 0)
    bytes: tuple[int, ...] = (0, 0, 0)
    tokens: tuple[int, ...] = (0, 0, 0)

    def more(self, part: int, *added: int) -> "Tally":
        """With more documents, bytes and tokens of a part."""
        found = [list(kind) for kind in (self.documents, self.bytes, self.tokens)]
        for kind, number in zip(found, added, strict=True):
            kind[part] += number
        return Tally(self.read, *map(tuple, found))

    @classmethod
    def of(cls, held: dict[str, Any]) -> "Tally":
        """As it was written, with `asdict`."""
        parts = (tuple(map(int, held[kind])) for kind in ("documents", "bytes", "tokens"))
        return cls(int(held["read"]), *parts)


@dataclass(frozen=True, eq=False)
class Shards:
    """The prepared corpus.

    Attributes:
        folder: with the files, and the tokenizer's artifact.
        key: of what determines the contents.
        seconds: that preparing took.
    """

    folder: Path
    key: str
    tokenizer: TextTokenizer
    tally: Tally
    seconds: float

    def tokens(self, part: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """Token ids of a part, (N,), memory-mapped: the mark, a document, the mark, …, the mark."""
        file, size = self.folder / f"{part}.bin", self.tally.tokens[PARTS.index(part)]
        dtype = dtype_of(self.tokenizer)
        return np.memmap(file, dtype, mode="r", shape=(size,)) if size else np.zeros(0, dtype)

    def describe(self) -> dict[str, Any]:
        """Documents, bytes and tokens of each part; bytes a token of the training part, marks included."""
        found: dict[str, Any] = {}
        for i, part in enumerate(PARTS):
            for kind in ("documents", "bytes", "tokens"):
                found[f"{part}_{kind}"] = getattr(self.tally, kind)[i]
        found["repeated_documents"] = self.tally.read - sum(self.tally.documents)
        found["bytes_per_token"] = self.tally.bytes[0] / self.tally.tokens[0]
        return found


def dtype_of(tokenizer: TextTokenizer) -> type[np.uint16] | type[np.uint32]:
    """The smaller one of two integers of the machine that holds every id."""
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32


def part_of(text: str, seed: int, val_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Index in `PARTS` of a document, and a hash of 64 bits that tells it from others.

    >>> [part_of(text, 0, 0.25, 0.25)[0] for text in "abcdef"]
    [1, 1, 0, 0, 0, 2]
    """
    digest = hashlib.blake2b(text.encode(), digest_size=16, key=seed.to_bytes(8, "big")).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    part = 2 if place < test_fraction else 1 if place < test_fraction + val_fraction else 0
    return part, int.from_bytes(digest[8:], "big")


def key_of(source: Source, recipe: Recipe) -> str:
    """SHA-256 of all that determines the files: the corpus, the split, the tokenizer, the version of this module."""
    what: dict[str, Any] = {"version": VERSION, "corpus": source.identity(), **asdict(recipe)}
    if recipe.tokenizer != BPE:
        del what["vocab_size"]
        what["tokenizer"] = make_tokenizer(recipe.tokenizer, 0, iter(())).sha256
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def open_shards(folder: Path, key: str) -> Shards | None:
    """What a folder holds; None where it is not whole."""
    try:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        tally = Tally.of(meta["tally"])
        found = Shards(folder, meta["key"], TextTokenizer.load(folder), tally, meta["seconds"])
        width = dtype_of(found.tokenizer)().itemsize
        sizes = tuple((folder / f"{part}.bin").stat().st_size // width for part in PARTS)
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: it is made again
        return None
    return found if found.key == key and sizes == tally.tokens and found.tokenizer.counts is not None else None
