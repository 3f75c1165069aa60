"""Populations of pairs by name: which parts of the data their ends lie in."""

from collections.abc import Mapping
from typing import Any

POPULATIONS = {
    "all": "all pairs",
    "train": "training × training",
    "mixed": "training × held-out",
    "held_out": "held-out × held-out",
}
_OF_THREE_PARTS = {
    "all": "all pairs",
    "train": "training × training",
    "mixed": "across parts",
    "validation": "validation × validation",
    "held_out": "test × test",
}


def population_names(relational: Mapping[str, Any]) -> dict[str, str]:
    """Populations of pairs and their names; where there is a test part, the held-out population is its pairs."""
    return names_of_parts(has_test_part(relational))


def has_test_part(relational: Mapping[str, Any]) -> bool:
    """Whether the figures are of data in three parts."""
    return any("validation/pairs" in (relational.get(of) or {}) for of in ("first", "last"))


def names_of_parts(test_part: bool) -> dict[str, str]:
    """Populations of pairs and their names, with a test part or without.

    >>> names_of_parts(False)["held_out"], names_of_parts(True)["held_out"]
    ('held-out × held-out', 'test × test')
    """
    return _OF_THREE_PARTS if test_part else POPULATIONS


def with_parts_of_speech(names: Mapping[str, str]) -> dict[str, str]:
    """The same with the nouns and verbs of the held-out population.

    >>> with_parts_of_speech(names_of_parts(True))["held_out/nouns"]
    'test nouns'
    """
    held_out = in_short(names)
    return {**names, "held_out/nouns": f"{held_out} nouns", "held_out/verbs": f"{held_out} verbs"}


def in_short(names: Mapping[str, str]) -> str:
    """The held-out population in a sentence: held-out, or test."""
    return names["held_out"].split()[0]
