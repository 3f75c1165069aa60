"""Which modulators an artefact or a configuration may name: this package's own, and those that a user brings.

A name in a file never imports anything by itself: a class must be here already, by being this package's or by
`register`, which a user's own code calls.
"""

from importlib import import_module

from modulators.base import Modulator

_SHIPPED = ("LerpModulator", "FieldModulator")
_REGISTERED: dict[str, type[Modulator]] = {}


def register(kind: type[Modulator]) -> type[Modulator]:
    """Makes a user's own modulator known under its class's name, for `load_modulated`; usable as a decorator.

    Raises:
        ValueError: it is no subclass of `Modulator`, or has the name of one of this package's.
    """
    if not (isinstance(kind, type) and issubclass(kind, Modulator)):
        raise ValueError(f"register: {kind!r} is no subclass of modulators.Modulator")
    if kind.__name__ in _SHIPPED and kind is not _shipped(kind.__name__):
        raise ValueError(f"register: {kind.__name__} is the name of one of this package's modulators")
    _REGISTERED[kind.__name__] = kind
    return kind


def known() -> tuple[str, ...]:
    """Every name, this package's first."""
    return (*_SHIPPED, *(name for name in _REGISTERED if name not in _SHIPPED))


def named(name: str) -> type[Modulator]:
    """The class of a name.

    Raises:
        ValueError: there is none.
    """
    if name not in known():
        raise ValueError(f"modulator is {name!r}; it must be one of {', '.join(known())}")
    return _REGISTERED.get(name) or _shipped(name)


def _shipped(name: str) -> type[Modulator]:
    kind: type[Modulator] = getattr(import_module("modulators"), name)
    return kind
