"""Options that several probes have, the values that these take, and how long work is shown there."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def at_least(least: int) -> Callable[[str], int]:
    """The type of an option that takes an integer of at least `least`."""

    def integer(text: str) -> int:
        if not (text.isascii() and text.isdigit() and int(text) >= least):
            raise ArgumentTypeError(f"{text!r} must be an integer of at least {least}")
        return int(text)

    return integer


def numbers(text: str) -> tuple[float, ...]:
    """The type of an option that takes numbers with commas between them."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ArgumentTypeError(f"{text!r} must be numbers such as 0,0.5,1,2") from error


def some_of(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """The type of an option that takes some of the known words, with commas between them."""

    def words(text: str) -> tuple[str, ...]:
        chosen = tuple(text.split(","))
        if unknown := [word for word in chosen if word not in known]:
            raise ArgumentTypeError(f"{unknown[0]!r} must be one of {', '.join(known)}")
        return chosen

    return words


def layer_numbers(text: str) -> tuple[int, ...]:
    """The type of an option that takes layers with commas between them."""
    if not all(part.isascii() and part.isdigit() for part in text.split(",")):
        raise ArgumentTypeError(f"{text!r} must be layers such as 0,3,5")
    return tuple(int(part) for part in text.split(","))


def add_model(parser: ArgumentParser) -> None:
    """What is measured, a run or a model."""
    what = "a run, its modulator/ or adapter/, mini, a folder in Hugging Face's layout, or a hub id"
    parser.add_argument("model", metavar="RUN_OR_MODEL", help=what)


def add_only(parser: ArgumentParser, parts: tuple[str, ...]) -> None:
    """``--only``: some of a battery's parts."""
    what = f"of {', '.join(parts)} (default: all)"
    parser.add_argument("--only", type=some_of(parts), default=parts, metavar="PART,…", help=what)


def add_layers(parser: ArgumentParser, noun: str = "blocks") -> None:
    """``--layers``: those to measure."""
    what = f"{noun} to measure, from 0 (default: all)"
    parser.add_argument("--layers", type=layer_numbers, default=None, metavar="N,…", help=what)


def add_ending(parser: ArgumentParser, drawn: str, folder: str) -> None:
    """The end of a battery's options: ``--seed``, ``--device``, ``--output``.

    Args:
        drawn: what the seed is of.
        folder: name of the default folder, in runs/probes.
    """
    add = parser.add_argument
    add("--seed", type=at_least(0), default=42, help=f"of {drawn} (default: %(default)s)")
    add("--device", default=None, help="cpu, cuda … (default: an accelerator, if there is one)")
    add("--output", type=Path, metavar="DIR", help=f"default: runs/probes/{folder}")


def readable(folders: Sequence[Path], read: Callable[[Path], T], wanted: str) -> tuple[list[T], list[str]]:
    """What is read of each folder, and why nothing is of those that are passed over, which are named on stderr.

    Args:
        folders: one that is named twice is read once.
        read: raises a ValueError for a folder that it cannot read.
        wanted: what a folder should be, for the error.

    Raises:
        ValueError: nothing could be read of any.
    """
    found, passed_over = list[T](), list[str]()
    for folder in {folder.resolve(): folder for folder in folders}.values():
        try:
            found.append(read(folder))
        except ValueError as error:
            passed_over.append(str(error))
            print(f"passed over: {error}", file=sys.stderr)
    if not found:
        raise ValueError(f"none of {len(folders)} folders is {wanted}")
    return found, passed_over


def check_device(name: str) -> None:
    """Refuse a device that is not there.

    Raises:
        ValueError: it is not, or torch knows none of that name.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device: {name!r} is not there ({str(error).splitlines()[0]}); cpu always is") from error


def with_bar(items: Iterable[T], label: str, total: int | None = None) -> Iterable[T]:
    """The items, with a progress bar on a terminal while they are gone through."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, label, total=total, console=console, transient=True, disable=not console.is_terminal)
