"""Values that several probes read from their command lines."""

from argparse import ArgumentTypeError
from collections.abc import Callable


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
