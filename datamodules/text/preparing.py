"""Makes the files of a corpus, once: documents are read one by one, and those seen before are dropped.

One process writes, the others wait for it. What is finished is noted every so often: after a crash the next process
starts there.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from datamodules.arguments import BPE
from datamodules.text.documents import Source
from datamodules.text.shards import META, PARTS, Recipe, Shards, Tally, dtype_of, key_of, open_shards, part_of
from datamodules.text.tokenizer import TextTokenizer, make_tokenizer
from modulant.storage import cache_folder, storing, write_whole
from modulant.storage.lock import FolderLock, LockedError

TRAINED_ON = 100_000_000  # bytes of the training part that a BPE is trained on, at most
_TOGETHER = 2**20  # bytes of documents that are encoded at once
_NOTED_EVERY = 2**26  # bytes of documents
_NOTES, _SEEN = "notes.json", "seen.bin"


def prepare(source: Source, recipe: Recipe, name: str) -> Shards:
    """The corpus's files in the user's cache: those that are there, or made now, once whoever else makes them is done.

    Args:
        name: of the corpus, for messages.

    Raises:
        ValueError: a part has no document, or the tokenizer does not keep the text.
        StorageError: the disk cannot store them.
    """
    key, folder = _place_of(source, recipe)
    if (found := open_shards(folder, key)) is not None:
        return found
    with storing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
    try:
        if (found := open_shards(folder, key)) is None:
            _write(folder, key, source, recipe, name)
            found = open_shards(folder, key)
    finally:
        lock.release()
    assert found is not None, "written just now"
    return found


def prepared(source: Source, recipe: Recipe) -> Shards | None:
    """The corpus's files if they are there; nothing is written."""
    key, folder = _place_of(source, recipe)
    return open_shards(folder, key)


def _place_of(source: Source, recipe: Recipe) -> tuple[str, Path]:
    key = key_of(source, recipe)
    return key, cache_folder() / "text" / key[:32]


def _locked(folder: Path) -> FolderLock:
    """The folder's lock, as soon as nobody else has it."""
    said = False
    while True:
        try:
            return FolderLock(folder)
        except LockedError as error:
            if not said:
                print(f"waiting for {error}, which prepares the same text in {folder} …", file=sys.stderr, flush=True)
            said = True


def _write(folder: Path, key: str, source: Source, recipe: Recipe, name: str) -> None:
    began = time.monotonic()
    print(f"preparing {name} for {recipe.tokenizer}, once …", flush=True)
    (folder / META).unlink(missing_ok=True)
    notes = _Notes.read(folder)
    if notes is None:
        tokenizer = make_tokenizer(recipe.tokenizer, recipe.vocab_size, _training_texts(source, recipe, name))
        tokenizer.save(folder)
        notes = _Notes(folder, tokenizer.sha256)
        notes.write(Tally(), np.zeros(0, dtype=np.uint64))
    else:
        tokenizer = TextTokenizer.pretrained(str(folder))
    tally = _encode(folder, source, recipe, tokenizer, notes, name)
    counts = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    stream = np.memmap(folder / "train.bin", dtype_of(tokenizer), mode="r")
    for start in range(0, len(stream), 2**24):
        counts += np.bincount(stream[start : start + 2**24], minlength=len(counts))
    tokenizer.with_counts(counts).save(folder)
    seconds = notes.seconds + time.monotonic() - began
    meta = {"key": key, "corpus": source.identity(), **asdict(recipe), "tally": asdict(tally), "seconds": seconds}
    write_whole(folder / META, json.dumps(meta, indent=1) + "\n")
    for spent in (_NOTES, _SEEN):
        (folder / spent).unlink(missing_ok=True)


@dataclass
class _Notes:
    """What of a preparation is on disk: its tally, and the hashes of documents that were seen."""

    folder: Path
    tokenizer_sha256: str
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> "_Notes | None":
        """Those of a preparation that was cut; None where it had not begun to encode."""
        try:
            held = json.loads((folder / _NOTES).read_text(encoding="utf-8"))
            found = cls(folder, held["tokenizer_sha256"], Tally.of(held["tally"]), held["seconds"])
            whole = TextTokenizer.pretrained(str(folder)).sha256 == found.tokenizer_sha256
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if whole and len(found.seen()) == sum(found.tally.documents) else None

    def seen(self) -> npt.NDArray[np.uint64]:
        """Hashes of the documents of the tally."""
        file, n = self.folder / _SEEN, sum(self.tally.documents)
        return np.fromfile(file, dtype=np.uint64, count=n) if n and file.is_file() else np.zeros(0, dtype=np.uint64)

    def write(self, tally: Tally, new: npt.NDArray[np.uint64], seconds: float = 0.0) -> None:
        """Add the hashes of new documents, then note the tally: what a crash leaves between the two is cut off."""
        with storing(self.folder / _SEEN), (self.folder / _SEEN).open("ab") as file:
            file.truncate(8 * sum(self.tally.documents))
            _append(file, new)
            os.fsync(file.fileno())
        self.tally = tally
        held = {"tokenizer_sha256": self.tokenizer_sha256, "tally": asdict(tally), "seconds": self.seconds + seconds}
        write_whole(self.folder / _NOTES, json.dumps(held) + "\n")


def _append(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    file.write(array.tobytes())
    file.flush()


def _encode(folder: Path, source: Source, recipe: Recipe, tokenizer: TextTokenizer, notes: _Notes, name: str) -> Tally:
    """Write the parts' files, from what is noted on."""
    began, tally, dtype = time.monotonic(), notes.tally, dtype_of(tokenizer)
    seen, new, noted = set(notes.seen().tolist()), list[int](), sum(tally.bytes)
    left = None if recipe.max_documents is None else recipe.max_documents - tally.read
    with ExitStack() as stack:
        files = []
        for part, tokens in zip(PARTS, tally.tokens, strict=True):
            with storing(folder / f"{part}.bin"):
                file = stack.enter_context((folder / f"{part}.bin").open("ab"))
                file.truncate(tokens * dtype().itemsize)
            files.append(file)
        advance = stack.enter_context(_progress(f"encoding {name}", source.size))
        advance(noted)
        for texts in _batches(islice(source.documents_from(tally.read), left)):
            fresh: tuple[list[str], ...] = ([], [], [])
            for text in texts:
                part_number, digest = part_of(text, recipe.seed, recipe.val_fraction, recipe.test_fraction)
                if text and digest not in seen:
                    seen.add(digest)
                    new.append(digest)
                    fresh[part_number].append(text)
            tally = replace(tally, read=tally.read + len(texts))
            for i, some in enumerate(fresh):
                stream, size = _stream(some, tokenizer, recipe.tokenizer, first=not tally.tokens[i])
                with storing(folder / f"{PARTS[i]}.bin"):
                    _append(files[i], stream.astype(dtype))
                tally = tally.more(i, len(some), size, len(stream))
                advance(size)
            if sum(tally.bytes) - noted >= _NOTED_EVERY:
                _flush(files)
                notes.write(tally, np.array(new, dtype=np.uint64), time.monotonic() - began)
                new, noted = [], sum(tally.bytes)
        _flush(files)
    _check_parts(tally, recipe, name)
    return tally


def _stream(texts: list[str], tokenizer: TextTokenizer, name: str, first: bool) -> tuple[npt.NDArray[np.int64], int]:
    """Ids of documents with the mark behind each, and before the first one of a part; and the documents' bytes."""
    pieces: list[Any] = [[tokenizer.end]] if first and texts else []
    total = 0
    for text, ids in zip(texts, tokenizer.encode_all(texts), strict=True):
        size, kept = len(text.encode()), int(tokenizer.byte_lengths[ids].sum())
        if size != kept:
            raise ValueError(_lossy(name, text, size, kept))
        pieces += [ids, [tokenizer.end]]
        total += size
    return np.concatenate([np.zeros(0, dtype=np.int64), *pieces]).astype(np.int64), total


def _flush(files: list[Any]) -> None:
    for file in files:
        os.fsync(file.fileno())


def _lossy(tokenizer: str, text: str, size: int, kept: int) -> str:
    return (
        f"data.tokenizer: {tokenizer!r} does not keep the text: of a document of {size:,} bytes its tokens hold "
        f"{kept:,} ({text[:40]!r} …); bits per byte would mean nothing: name another, or {BPE}"
    )


def _check_parts(tally: Tally, recipe: Recipe, name: str) -> None:
    """Refuse a corpus that leaves a part empty."""
    if not sum(tally.documents):
        raise ValueError(f"data.corpus: {name} is empty: there is no document in it")
    wanted = (True, True, recipe.test_fraction > 0)
    for part, documents, needed in zip(PARTS, tally.documents, wanted, strict=True):
        if needed and not documents:
            raise ValueError(
                f"data.corpus: none of the {sum(tally.documents):,} distinct documents of {name} falls into the part "
                f"{part!r}; give more documents (blank lines separate those of a text file), or a larger share"
            )


def _training_texts(source: Source, recipe: Recipe, name: str) -> Iterator[str]:
    """Documents of the training part, as many as a tokenizer is trained on."""
    seen: set[int] = set()
    size = 0
    with _progress(f"training a tokenizer on {name}", min(source.size or TRAINED_ON, TRAINED_ON)) as advance:
        for text in islice(source.documents(), recipe.max_documents):
            part, digest = part_of(text, recipe.seed, recipe.val_fraction, recipe.test_fraction)
            if text and part == 0 and digest not in seen:
                seen.add(digest)
                yield text
                size += (own := len(text.encode()))
                advance(own)
                if size >= TRAINED_ON:
                    return


def _batches(documents: Iterator[str]) -> Iterator[list[str]]:
    """Documents in lists of about `_TOGETHER` bytes."""
    some: list[str] = []
    size = 0
    for text in documents:
        some.append(text)
        size += len(text)
        if size >= _TOGETHER:
            yield some
            some, size = [], 0
    if some:
        yield some


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[float], None]]:
    """A progress bar on a terminal's standard error; nothing elsewhere. Yields what moves it on."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda amount: bar.advance(task, amount)
