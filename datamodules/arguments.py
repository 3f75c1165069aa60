"""The prompts that a user names, and the smallest vocabulary of a T5 tokenizer. Imports no torch."""

import sys
from functools import cache
from pathlib import Path
from typing import TextIO

STANDARD_INPUT = "-"  # in the place of a file of prompts: lines that are piped in, or a person at a terminal

# A T5 tokenizer: padding, end and unknown, one piece at least, and the sentinels of span corruption.
SENTINELS = 100
SPECIAL = ("<pad>", "</s>", "<unk>")
SMALLEST_VOCABULARY = SENTINELS + len(SPECIAL) + 1


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
