"""Values as a user writes them: read, compared with a type, and said in words."""

import typing
from collections.abc import Iterator
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from cli.arguments import check_size
from cli.signatures import Built

_SIMPLE: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}


class _Wrong:
    pass


WRONG = _Wrong()


def describe(kind: Any) -> Iterator[str]:
    """A type in words, one for each alternative; nothing where a part of it is a class to be built.

    >>> list(describe(int | None)), list(describe(Literal["a", "b"])), list(describe(list[int]))
    (['an integer', 'null'], ['a', 'b'], ['a list (an integer each)'])
    """
    words: list[str] = []
    if kind in _SIMPLE:
        words = [_SIMPLE[kind]]
    elif typing.get_origin(kind) is Literal:
        words = [str(value) for value in typing.get_args(kind)]
    elif typing.get_origin(kind) in (typing.Union, UnionType):
        parts = [list(describe(part)) for part in typing.get_args(kind)]
        words = [word for part in parts for word in part] if all(parts) else []
    elif typing.get_origin(kind) in (list, typing.get_origin(typing.Sequence[int])):
        inner = " or ".join(describe(typing.get_args(kind)[0]))
        words = [f"a list ({inner} each)"] if inner else []
    yield from words


def takes_names(kind: Any) -> bool:
    """Whether a text can only be the name of something to build or to call.

    >>> takes_names(Built | None), takes_names(Built | str), takes_names(int)
    (True, False, False)
    """
    parts = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, UnionType) else (kind,)
    return Built in parts and str not in parts


def either(words: list[str]) -> str:
    """
    >>> either(["a", "b"]), either(["a", "b", "c", "d"])
    ('a or b', 'one of a, b, c, d')
    """
    return f"one of {', '.join(words)}" if len(words) > 3 else " or ".join(words)


def parsed(value: Any, kind: Any) -> Any:
    """A value as the parser will understand it, or `WRONG`."""
    parser = _parser(kind)
    try:
        if isinstance(value, str):
            understood = parser.parse_args([f"--value={value}"]).value
        else:
            understood = parser.parse_object({"value": value}).value
    except (ArgumentError, TypeError, ValueError, RecursionError):
        return WRONG
    # to the parser null is always right: the argument is not set
    return WRONG if understood is None and "null" not in describe(kind) else understood


@cache
def _parser(kind: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    return parser


def read_value(text: str) -> Any:
    """What stands behind an option, as YAML; a text where it is none."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # a number or a date that is none raises ValueError
        return text
    check_size(value)
    return value


def short(value: Any) -> str:
    """
    >>> short("a" * 70)[-3:], len(short("a" * 70))
    ('aa…', 58)
    """
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
