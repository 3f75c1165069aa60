"""What the arguments of DataModules may be, known without torch, lightning and transformers.

Each check is called by the constructor of the class that it is named after, and by the command line before anything
heavy is imported. Its parameters are some of the constructor's, by name.
"""

import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TextIO

STANDARD_INPUT = "-"  # in the place of a file of prompts: lines that are piped in, or a person at a terminal

# A T5 tokenizer: padding, end and unknown, one piece at least, and the sentinels of span corruption.
SENTINELS = 100
SPECIAL = ("<pad>", "</s>", "<unk>")
SMALLEST_VOCABULARY = SENTINELS + len(SPECIAL) + 1


def check_corpus(batch_size: int, val_fraction: float, seed: int) -> None:
    """What every DataModule asks."""
    if batch_size < 1:
        raise ValueError(f"data.batch_size must be at least 1, got {batch_size}")
    if not 0 < val_fraction < 1:
        raise ValueError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}")
    if seed < 0:
        raise ValueError(f"data.seed must not be negative, got {seed}")


def check_wordnet(
    batch_size: int,
    val_fraction: float,
    matching: str,
    seed: int,
    order_seed: int | None,
    num_workers: int,
    prompts: str | list[str] | None,
    pad_to_multiple_of: int,
) -> None:
    check_corpus(batch_size, val_fraction, seed)
    if matching not in ("single_token", "all"):
        raise ValueError(f"data.matching is {matching!r}; it must be single_token or all")
    if order_seed is not None and order_seed < 0:
        raise ValueError(f"data.order_seed must not be negative, got {order_seed}")
    if num_workers < 0:
        raise ValueError(f"data.num_workers must not be negative, got {num_workers}")
    if pad_to_multiple_of < 1:
        raise ValueError(f"data.pad_to_multiple_of must be at least 1, which rounds nothing, got {pad_to_multiple_of}")
    read_prompts(prompts)


def check_gloss(
    tokenizer: str | None, vocab_size: int, batch_size: int, pair_fraction: float, val_fraction: float, seed: int
) -> None:
    check_corpus(batch_size, val_fraction, seed)
    if not 0 <= pair_fraction < 1:
        raise ValueError(f"data.pair_fraction must be at least 0 and below 1, got {pair_fraction}")
    if tokenizer is None and vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"data.vocab_size must be at least {SMALLEST_VOCABULARY}, got {vocab_size}")


def read_prompts(prompts: str | list[str] | None) -> list[str] | str | None:
    """What is to be asked: the lines of a file that are not empty, the list as it is, or `STANDARD_INPUT`.

    Raises:
        ValueError: the file cannot be read as text, or there is no prompt.
    """
    if prompts is None or prompts == STANDARD_INPUT:
        return prompts
    if isinstance(prompts, list):
        texts = prompts
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
    """Asked for by the command line and by the data; a pipe can be read once."""
    try:
        return _lines(stream.read())
    except (OSError, ValueError) as error:  # closed, or no UTF-8
        raise ValueError(f"data.prompts: standard input cannot be read ({error}); give --prompt TEXT") from error


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


# Class → its check, for the command line.
CHECKS: Mapping[str, Callable[..., None]] = {"GlossDataModule": check_gloss, "WordNetDataModule": check_wordnet}
