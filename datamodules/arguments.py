"""What can be known of a DataModule's arguments beforehand: prompts, vocabularies, corpora. Imports no torch."""

import difflib
import importlib.util
import re
import sys
from functools import cache
from pathlib import Path
from typing import TextIO

from modulant.storage import cache_folder

STANDARD_INPUT = "-"  # in the place of a file of prompts: lines that are piped in, or a person at a terminal

# A T5 tokenizer: padding, end and unknown, one piece at least, and the sentinels of span corruption.
SENTINELS = 100
SPECIAL = ("<pad>", "</s>", "<unk>")
SMALLEST_VOCABULARY = SENTINELS + len(SPECIAL) + 1

# Corpora by name, and the ends of names of files that are read: as text, as a JSON object a line, as a table.
WORDNET, KJV = "wordnet", "kjv"
KJV_SHA256 = "32ecb091440b6d7a0379528fc726b1e705408f2f856978c859f66d96d050c23c"
JSON_LINES = (".jsonl", ".ndjson", ".jsonl.gz", ".ndjson.gz")
PARQUET = ".parquet"
READ = (".txt", ".md", *JSON_LINES, PARQUET)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# Tokenizers by name; any other is a folder or a hub id.
BYTES, BPE = "bytes", "bpe"
END_OF_TEXT = "<|endoftext|>"  # between documents
SMALLEST_BPE = 256 + 1


def check_vocabulary(tokenizer: str | None, vocab_size: int) -> None:
    """Refuse a vocabulary that is too small for a T5 tokenizer that is to be trained.

    Raises:
        ValueError: it is.
    """
    if tokenizer is None and vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"data.vocab_size is {vocab_size}; it must be at least {SMALLEST_VOCABULARY}")


def check_fractions(val_fraction: float, test_fraction: float) -> None:
    """Refuse parts that leave nothing to train on.

    Raises:
        ValueError: they do.
    """
    if val_fraction + test_fraction >= 1:
        raise ValueError(
            f"data.val_fraction is {val_fraction} and data.test_fraction {test_fraction}; their sum must be below 1, "
            "so that something is left to train on"
        )


def read_prompts(prompts: str | list[str] | None) -> list[str] | str | None:
    """Prompts to answer: the non-empty lines of a file, the list as it is, or `STANDARD_INPUT`.

    Raises:
        ValueError: the file cannot be read as text, there is no prompt, or one of a list is empty.
    """
    if prompts is None or prompts == STANDARD_INPUT:
        return prompts
    if isinstance(prompts, list):
        texts = prompts
        if empty := next((i for i, text in enumerate(texts, 1) if not text.strip()), None):
            raise ValueError(f"data.prompts: prompt {empty} of {len(texts)} is empty")
    else:
        file = Path(prompts).expanduser()
        try:
            texts = _lines(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"data.prompts: {file} cannot be read ({error.strerror}); name a text file") from error
        except UnicodeDecodeError as error:
            raise ValueError(f"data.prompts: {file} is no text in UTF-8 ({error.reason} at {error.start})") from error
        except ValueError as error:  # no name of a file
            raise ValueError(f"data.prompts: {prompts!r} cannot be read ({error}); name a text file") from error
    if not texts:
        raise ValueError("data.prompts: there is no prompt in it")
    return texts


def piped_prompts() -> list[str] | None:
    """The lines of standard input; None where that is a terminal.

    Raises:
        ValueError: there is no prompt in it, or it is no text.
    """
    if sys.stdin is not None and sys.stdin.isatty():
        return None
    texts = [] if sys.stdin is None else _piped(sys.stdin)
    if not texts:
        raise ValueError(
            "data.prompts: no prompt, and no terminal to type one at; give --prompt TEXT, --data.prompts FILE, or "
            "lines on standard input"
        )
    return texts


@cache
def _piped(stream: TextIO) -> list[str]:
    """Lines of a stream, cached: the command line and the DataModule need them, and a pipe can be read only once."""
    try:
        return _lines(stream.read())
    except (OSError, ValueError) as error:  # closed, or no UTF-8
        raise ValueError(f"data.prompts: standard input cannot be read ({error}); give --prompt TEXT") from error


def _lines(text: str) -> list[str]:
    """Lines that hold something. U+2028, a form feed and their like are part of a line, a byte order mark is not."""
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [line.strip() for line in lines if line.strip()]


def kjv_file() -> Path:
    """The King James Bible, as ``scripts/kjv.py`` leaves it in the user's cache."""
    return cache_folder() / "kjv-4.38.txt"


def missing(package: str, what: str) -> ValueError:
    """That a corpus needs a package that is not installed."""
    return ValueError(f"data.corpus: {what} needs {package}, which is not installed; pip install {package}")


def files_of(corpus: str) -> list[Path]:
    """The files that a path means: itself, or those of a folder, by name, as far as their ends are known.

    >>> files_of("neither/file/nor/folder")
    []
    """
    path = Path(corpus).expanduser()
    if not path.is_dir():
        return [path] if path.exists() else []
    inside = (file for file in path.rglob("*") if file.name.endswith(READ) and file.is_file())
    return sorted(file for file in inside if not any(p.startswith(".") for p in file.relative_to(path).parts))


def check_corpus(corpus: str) -> None:
    """Refuse a corpus that is not there, or whose package is not.

    Raises:
        ValueError: one of these.
    """
    path = Path(corpus).expanduser()
    if corpus == WORDNET:
        return
    if corpus == KJV:
        if not kjv_file().is_file():
            raise ValueError("data.corpus: kjv is not prepared; run python scripts/kjv.py of a checkout, on Debian")
    elif path.exists():
        files = files_of(corpus)
        if not files:
            raise ValueError(f"data.corpus: {corpus} holds no file that ends in {', '.join(READ)}")
        if odd := next((file for file in files if not file.is_file()), None):
            raise ValueError(f"data.corpus: {odd} is no regular file; it is read more than once")
        if any(file.name.endswith(PARQUET) for file in files) and importlib.util.find_spec("pyarrow") is None:
            raise missing("pyarrow", corpus)
    elif _HUB_ID.fullmatch(corpus) and not corpus.endswith(READ) and not Path(corpus).parent.is_dir():
        if importlib.util.find_spec("datasets") is None:
            raise missing("datasets", f"{corpus}, as a dataset of the hub,")
    else:
        near = difflib.get_close_matches(corpus, (WORDNET, KJV), n=1)
        raise ValueError(
            f"data.corpus: {corpus!r} is neither {WORDNET} nor {KJV}, nor a file or folder, nor a hub id (owner/name)"
            + (f"; did you mean {near[0]}?" if near else "")
        )


def check_windows(context: int, batch_tokens: int) -> None:
    """Refuse batches that are not of whole windows.

    Raises:
        ValueError: they are not.
    """
    if batch_tokens % context:
        raise ValueError(f"data.batch_tokens is {batch_tokens}; it must be a multiple of data.context, {context}")


def check_text_vocabulary(tokenizer: str, vocab_size: int) -> None:
    """Refuse a vocabulary that has no room for every byte and the mark between documents.

    Raises:
        ValueError: it has not.
    """
    if tokenizer == BPE and vocab_size < SMALLEST_BPE:
        raise ValueError(f"data.vocab_size is {vocab_size}; it must be at least {SMALLEST_BPE}, of bytes and one mark")
