"""Settings stated once: a constructor's annotations hold their types and ranges, its docstring what they mean.

`checked` makes a constructor refuse what its annotations exclude. `cli/schema.json`, by which the command line and
editors check a configuration, is generated from the same annotations. Imports no torch.
"""

import functools
import inspect
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from operator import ge, gt, le, lt
from typing import Annotated, Any, Literal, TypeVar, Union

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Interval:
    """Bounds of a number, by the keywords of JSON Schema; NaN and infinities lie in none."""

    minimum: float | None = None
    exclusiveMinimum: float | None = None  # noqa: N815
    maximum: float | None = None
    exclusiveMaximum: float | None = None  # noqa: N815

    def keywords(self) -> dict[str, float]:
        """The bounds that are set, as JSON Schema names them."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Pattern:
    """The form of a text: a regular expression for all of it, and what it asks for in words."""

    pattern: str
    title: str

    def keywords(self) -> dict[str, str]:
        """As JSON Schema names them, whose patterns are not anchored."""
        return {"pattern": f"^{self.pattern}$", "title": self.title}


PositiveInt = Annotated[int, Interval(minimum=1)]
NonNegativeInt = Annotated[int, Interval(minimum=0)]
PositiveFloat = Annotated[float, Interval(exclusiveMinimum=0)]
NonNegativeFloat = Annotated[float, Interval(minimum=0)]
OpenUnitInterval = Annotated[float, Interval(exclusiveMinimum=0, exclusiveMaximum=1)]
HalfOpenUnitInterval = Annotated[float, Interval(minimum=0, exclusiveMaximum=1)]
Share = Annotated[float, Interval(minimum=0, maximum=1)]
Seed = Annotated[int, Interval(minimum=0, maximum=2**63 - 1)]  # what torch's generators take
Compile = bool | Literal["reduce-overhead"]  # how training passes are compiled (`modulant.compiling`)

_PLAIN: dict[Any, tuple[str, Any]] = {
    bool: ("boolean", bool),
    int: ("integer", numbers.Integral),
    float: ("number", numbers.Real),
    str: ("string", str),
    types.NoneType: ("null", types.NoneType),
}
_WORDS = {
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "string": "text",
    "object": "a mapping",
}


def _is_multiple(value: float, of: float) -> bool:
    return value % of == 0


_COMPARE = {"minimum": ge, "exclusiveMinimum": gt, "maximum": le, "exclusiveMaximum": lt, "multipleOf": _is_multiple}


def schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema of an annotation; a class that is to be built is an object.

    >>> schema_of(PositiveInt), schema_of(Literal["a", "b"])
    ({'type': 'integer', 'minimum': 1}, {'enum': ['a', 'b']})
    >>> schema_of(int | None)
    {'anyOf': [{'type': 'integer'}, {'type': 'null'}]}
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [note.keywords() for note in parts[1:] if isinstance(note, Interval | Pattern)]
        return schema_of(parts[0]) | (bounds[0] if bounds else {})
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        options = [schema_of(part) for part in parts]
        flat = [inner for option in options for inner in option.get("anyOf", [option])]
        return {} if {} in flat else {"anyOf": [o for i, o in enumerate(flat) if o not in flat[:i]]}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": schema_of(parts[0])}
    if hint in _PLAIN:
        return {"type": _PLAIN[hint][0]}
    if isinstance(hint, type) and issubclass(hint, os.PathLike | timedelta):  # text in a configuration
        return {"anyOf": [{"type": "string"}, {"type": "object"}]}
    return {} if hint is Any else {"type": "object"}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value fits a schema of the kinds that `schema_of` makes.

    >>> accepts({"type": "integer", "minimum": 1}, True), accepts({"type": "number", "maximum": 1}, float("nan"))
    (False, False)
    """
    if "anyOf" in schema:
        return any(accepts(option, value) for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in schema["enum"])
    kind = schema.get("type")
    if kind is None:
        return True
    if kind == "object":
        return not isinstance(value, str | numbers.Number | types.NoneType | list | tuple)
    if kind == "array":
        plain = isinstance(value, Sequence) and not isinstance(value, str)
        return plain and all(accepts(schema.get("items", {}), item) for item in value)
    python = next((python for name, python in _PLAIN.values() if name == kind), None)
    if python is None or not isinstance(value, python) or (isinstance(value, bool) and kind != "boolean"):
        return False
    if kind == "string":
        return re.fullmatch(schema.get("pattern", ".*"), value, re.DOTALL) is not None
    bounds = [(compare, schema[name]) for name, compare in _COMPARE.items() if name in schema]
    return not bounds or (math.isfinite(value) and all(compare(value, bound) for compare, bound in bounds))


def describe(schema: dict[str, Any]) -> str:
    """What a schema accepts, in words; a ``title`` replaces the words.

    >>> describe({"type": "integer", "minimum": 1}), describe({"enum": ["a", "b", "c"]})
    ('an integer of at least 1', 'one of a, b, c')
    >>> describe({"anyOf": [{"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, {"type": "null"}]})
    'a number between 0 and 1 (exclusive) or null'
    """
    words = list(dict.fromkeys(_alternatives(schema)))
    return f"one of {', '.join(words)}" if len(words) > 2 else " or ".join(words)


def _alternatives(schema: dict[str, Any]) -> Iterator[str]:
    if "title" in schema:
        yield schema["title"]
    elif "anyOf" in schema:
        for option in schema["anyOf"]:
            yield from _alternatives(option)
    elif "enum" in schema:
        yield from ("null" if value is None else str(value).lower() if value is True or value is False else str(value)
                    for value in schema["enum"])  # fmt: skip
    elif schema.get("type") == "array":
        items = describe(schema.get("items", {}))
        yield f"a list ({items} each)" if items else "a list"
    elif "type" in schema:
        yield _WORDS.get(schema["type"], schema["type"]) + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if above is not None and below is not None:
        return f" between {above} and {below} (exclusive)"
    words = [
        f"{word} {bound}"
        for word, bound in (("of at least", low), ("above", above), ("at most", high), ("below", below))
        if bound is not None
    ]
    return "".join([" ", " and ".join(words)]) if words else ""


def checked(init: F) -> F:
    """Make a constructor, or a dataclass's ``__post_init__``, refuse values that the annotations exclude.

    The `ValueError` names the argument, its value and what it must be.
    """
    fields = init.__name__ == "__post_init__"
    signature = inspect.signature(init)
    schemas: dict[str, dict[str, Any]] = {}

    @functools.wraps(init)
    def refusing(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not schemas:  # at the first call: annotations may name what is defined further down
            hints = typing.get_type_hints(type(self) if fields else init, include_extras=True)
            schemas.update({name: schema_of(hint) for name, hint in hints.items() if name != "return"})
        given = (
            {name: getattr(self, name) for name in schemas}
            if fields
            else signature.bind(self, *args, **kwargs).arguments
        )
        for name, value in given.items():
            if not accepts(schemas.get(name, {}), value):
                raise ValueError(f"{name} is {value!r}; it must be {describe(schemas[name])}")
        return init(self, *args, **kwargs)

    return typing.cast(F, refusing)
