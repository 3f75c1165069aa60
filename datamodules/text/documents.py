"""Where documents come from: WordNet's glosses, files of a user's, the hub.

A document is a text without white space at its ends. Documents are read one by one, so that a corpus may be larger than
memory; only a single document may not. Imports no torch.
"""

import gzip
import hashlib
import json
import mmap
import os
import re
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from datamodules.arguments import (
    END_OF_TEXT,
    JSON_LINES,
    KJV,
    KJV_SHA256,
    PARQUET,
    WORDNET,
    check_corpus,
    files_of,
    kjv_file,
    missing,
)
from modulant.storage import sha256_of

MOST_BYTES = 2**28  # of a document
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")
_END = re.compile(re.escape(END_OF_TEXT.encode()))


class Source(ABC):
    """A corpus that can be read again and again, each time with the same documents in the same order."""

    size: int | None = None  # of its text in bytes, about, where it is known beforehand

    @abstractmethod
    def identity(self) -> str:
        """What determines the documents: a checksum of the contents, or a commit."""

    @abstractmethod
    def documents(self) -> Iterator[str]:
        """The documents, in order; empty ones and repeated ones may be among them."""

    def documents_from(self, start: int) -> Iterator[str]:
        """The same without the first ``start``."""
        return islice(self.documents(), start, None)


@dataclass(frozen=True)
class Hub:
    """Where in a dataset of the hub documents are.

    Attributes:
        subset: configuration of the dataset.
        split: its split.
        revision: branch, tag or commit.
    """

    subset: str | None = None
    split: str = "train"
    revision: str | None = None


def open_source(corpus: str, column: str = "text", hub: Hub | None = None) -> Source:
    """A corpus by its name: ``wordnet``, ``kjv``, a file, a folder, or a hub id.

    Args:
        column: of JSON lines, of Parquet and of the hub: the key that holds the text.

    Raises:
        ValueError: there is none by this name, or it needs a package that is not installed.
    """
    check_corpus(corpus)
    if corpus == WORDNET:
        return _WordNet()
    if corpus == KJV:
        return _Files(_checked_kjv(), column)
    if files := files_of(corpus):
        return _Files(files, column, paragraphs=not Path(corpus).expanduser().is_dir())
    return _OfHub(corpus, column, hub or Hub())


class _WordNet(Source):
    """Each distinct definition with the examples of its synsets; no example stands twice.

    Else a split of documents would have the same sentences on both of its sides: 952 definitions and 115 examples
    belong to more than one synset.
    """

    def __init__(self) -> None:
        from modulant.lexicon import Lexicon  # a second, of which NLTK is the most

        self._lexicon = Lexicon.load()

    def identity(self) -> str:
        from modulant.assets import WORDNET_SHA256

        return f"wordnet {WORDNET_SHA256}"

    def documents(self) -> Iterator[str]:
        found: dict[str, list[str]] = {}
        seen: set[str] = set()
        for row, definition in enumerate(self._lexicon.definitions):
            examples = found.setdefault(definition.strip(), [])
            for example in map(str.strip, self._lexicon.examples_of(row)):
                if example not in seen:
                    seen.add(example)
                    examples.append(example)
        for definition, examples in found.items():
            yield "; ".join([definition, *examples])


class _Files(Source):
    """Files, each read by the kind that its name's end says."""

    def __init__(self, files: list[Path], column: str, paragraphs: bool = False) -> None:
        self._files, self._column, self._paragraphs = files, column, paragraphs
        if not any(file.name.endswith((PARQUET, ".gz")) for file in files):
            self.size = sum(file.stat().st_size for file in files)

    def identity(self) -> str:
        parts = [f"{_kind(file)} {sha256_of(file)}\n" for file in self._files]
        text = f"{self._column} {self._paragraphs}\n{''.join(parts)}"
        return f"files {hashlib.sha256(text.encode()).hexdigest()}"

    def documents(self) -> Iterator[str]:
        for file in self._files:
            kind = _kind(file)
            try:
                if kind == "text":
                    yield from _of_text(file, self._paragraphs)
                elif kind == "parquet":
                    yield from _of_parquet(file, self._column)
                else:
                    yield from _of_json_lines(file, self._column)
            except OSError as error:
                raise ValueError(f"data.corpus: {file} cannot be read ({error.strerror or error})") from error


def _kind(file: Path) -> str:
    if file.name.endswith(PARQUET):
        return "parquet"
    return "json lines" if file.name.endswith(JSON_LINES) else "text"


def _of_text(file: Path, paragraphs: bool) -> Iterator[str]:
    """Documents of a text file, which is mapped, not read.

    They are what lies between marks `END_OF_TEXT`, wherever there is one; else paragraphs, or the whole file.
    """
    with file.open("rb") as stream:
        if not os.fstat(stream.fileno()).st_size:
            return
        text = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # closed when the last match is gone
    start = len(_BYTE_ORDER_MARK) if text[:3] == _BYTE_ORDER_MARK else 0
    pattern = _END if _END.search(text) else _BLANK_LINE if paragraphs else None
    for match in pattern.finditer(text) if pattern else ():
        if document := _decoded(text, start, match.start(), file):
            yield document
        start = match.end()
    if document := _decoded(text, start, len(text), file):
        yield document


def _decoded(text: mmap.mmap, start: int, end: int, file: Path) -> str:
    if end - start > MOST_BYTES:
        raise ValueError(
            f"data.corpus: {file} has a document of {(end - start) / 2**20:,.0f} MiB, and the most is "
            f"{MOST_BYTES / 2**20:,.0f}; separate documents by blank lines or {END_OF_TEXT}"
        )
    content = text[start:end]
    try:
        if (zero := content.find(b"\0")) >= 0:
            raise UnicodeDecodeError("utf-8", content, zero, zero + 1, "a byte 0")
        return content.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"data.corpus: {file} is no text in UTF-8 ({error.reason} at byte {start + error.start:,})"
        ) from error


def _of_json_lines(file: Path, column: str) -> Iterator[str]:
    number = 0
    with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as stream:
        try:
            for number, line in enumerate(_lines(stream, file), 1):
                if line.strip():
                    yield _field(json.loads(line), column, f"{file}, line {number}")
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"data.corpus: {file} is damaged after line {number} ({error})") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"data.corpus: {file}, line {number}, is no JSON ({error})") from error


def _lines(stream: BinaryIO | gzip.GzipFile, file: Path) -> Iterator[bytes]:
    while line := stream.readline(MOST_BYTES + 1):
        if len(line) > MOST_BYTES:
            raise ValueError(f"data.corpus: {file} has a line of more than {MOST_BYTES / 2**20:,.0f} MiB")
        yield line


def _field(row: Any, column: str, where: str) -> str:
    """The text in a row of a table."""
    if not isinstance(row, dict) or column not in row:
        found = f"its keys are {', '.join(map(str, row))}" if isinstance(row, dict) else "it is no mapping"
        raise ValueError(f"data.corpus: {where} has nothing under {column!r} (data.column); {found}")
    text = row[column]
    if text is None:
        return ""
    if not isinstance(text, str):
        raise ValueError(f"data.corpus: {where} has no text under {column!r} (data.column), but {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"data.corpus: {where} has half of a surrogate pair under {column!r}") from error
    return text.strip()


def _of_parquet(file: Path, column: str) -> Iterator[str]:
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise missing("pyarrow", str(file)) from error
    try:
        with ParquetFile(file) as table:
            names = table.schema_arrow.names
            if column not in names:
                raise ValueError(
                    f"data.corpus: {file} has nothing under {column!r} (data.column); its keys are {', '.join(names)}"
                )
            for batch in table.iter_batches(batch_size=1024, columns=[column]):
                for row in batch.to_pylist():
                    yield _field(row, column, str(file))
    except pa.ArrowException as error:
        raise ValueError(f"data.corpus: {file} is no readable Parquet ({_first_line(error)})") from error


class _OfHub(Source):
    """A dataset of the hub, streamed."""

    def __init__(self, name: str, column: str, hub: Hub) -> None:
        self._name, self._column, self._hub = name, column, hub

    def identity(self) -> str:
        hub = self._hub
        return f"hub {self._name} {hub.subset} {hub.split} {self._column} {self._commit}"

    @cached_property
    def _commit(self) -> str:
        """The commit that a revision is now; the hub is not asked where a commit is given."""
        revision = self._hub.revision
        if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
            return revision
        from huggingface_hub import HfApi

        try:
            return str(HfApi().dataset_info(self._name, revision=revision).sha)
        except Exception as error:  # its HTTP client's, which is not always the same package
            raise ValueError(
                f"data.corpus: the hub does not say which commit {self._name} is at ({_first_line(error)}); name a "
                "file, or a commit by data.hub_revision, of which what was prepared before needs no hub"
            ) from error

    def documents(self) -> Iterator[str]:
        return self.documents_from(0)

    def documents_from(self, start: int) -> Iterator[str]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise missing("datasets", self._name) from error
        hub = self._hub
        revision = None if os.path.isdir(self._name) else self._commit
        try:
            table = load_dataset(self._name, hub.subset, split=hub.split, streaming=True, revision=revision)
            for number, row in enumerate(table.skip(start) if start else table, start + 1):
                yield _field(row, self._column, f"{self._name}, row {number}")
        except ValueError as error:
            if str(error).startswith("data."):
                raise
            raise self._unreadable(error) from error
        except Exception as error:  # of datasets, fsspec, or the hub's client
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ValueError:
        return ValueError(f"data.corpus: {self._name} cannot be read ({_first_line(error)})")


def _checked_kjv() -> list[Path]:
    """The file that ``scripts/kjv.py`` has written.

    Raises:
        ValueError: it is not there, or another one.
    """
    file = kjv_file()
    if sha256_of(file) != KJV_SHA256:
        raise ValueError(f"data.corpus: {file} is not what was prepared; remove it and run python scripts/kjv.py again")
    return [file]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
