"""Registry of the modulators that an artefact or a configuration may name: those shipped, and user-supplied ones.

A name in a file never causes an import: its class must be shipped, or registered before by the user's code
(`register`).
"""

from importlib import import_module

from modulators.base import Modulator

_SHIPPED = ("LerpModulator", "FieldModulator")
_REGISTERED: dict[str, type[Modulator]] = {}


def register(kind: type[Modulator]) -> type[Modulator]:
    """Register a user-supplied modulator under its class's name, for `load_modulated`; usable as a decorator.

    Raises:
        ValueError: it is no subclass of `Modulator`, or has the name of a shipped one.
    """
    if not (isinstance(kind, type) and issubclass(kind, Modulator)):
        raise ValueError(f"register: {kind!r} is not a subclass of modulators.Modulator")
    if kind.__name__ in _SHIPPED and kind is not _shipped(kind.__name__):
        raise ValueError(f"register: {kind.__name__} is the name of a shipped modulator; choose another name")
    _REGISTERED[kind.__name__] = kind
    return kind


def registered_names() -> tuple[str, ...]:
    """All names, shipped ones first."""
    return (*_SHIPPED, *(name for name in _REGISTERED if name not in _SHIPPED))


def registered_class(name: str) -> type[Modulator]:
    """Return the class registered under `name`.

    Raises:
        ValueError: there is none.
    """
    if name not in registered_names():
        raise ValueError(f"modulator is {name!r}; it must be one of {', '.join(registered_names())}")
    return _REGISTERED.get(name) or _shipped(name)


def _shipped(name: str) -> type[Modulator]:
    kind: type[Modulator] = getattr(import_module("modulators"), name)
    return kind
