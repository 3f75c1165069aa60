"""How sections of a configuration are made from mappings. Imports no torch."""

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, TypeVar

Section = TypeVar("Section")


def section(kind: type[Section], value: Section | Mapping[str, Any], name: str) -> Section:
    """A section of a configuration, from itself or from a mapping.

    Raises:
        ValueError: an unknown key or a value out of range; the line names the section.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} is {value!r}; it must be a mapping or a {kind.__name__}")
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for key in value:
        if key not in known:
            near = get_close_matches(str(key), known, 1, 0)
            raise ValueError(f"{name}.{key} is no setting; the nearest is {name}.{near[0]}")
    try:
        return kind(**value)
    except ValueError as error:
        raise ValueError(f"{name}.{error}") from None


def set_fields(target: object, **values: Any) -> None:
    """Set fields of a frozen dataclass while it is made."""
    for name, value in values.items():
        object.__setattr__(target, name, value)
