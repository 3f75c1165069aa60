"""What is read from sources is what the classes say of themselves once they are imported."""

import importlib
import inspect
import typing
from typing import Any

import pytest

from cli.sections import (
    GEOMETRY,
    SECTIONS,
    SHORT_NAMES,
    TRAINER,
    allowlist,
    data_classes,
    model_classes,
    modulator_classes,
    trainer_classes,
)
from cli.signatures import REQUIRED, UNKNOWN, Built, names_of, signature
from cli.trainer import ACCELERATORS
from cli.values import describe

OURS = [*model_classes(), *data_classes(), *modulator_classes(), *SECTIONS.values(), GEOMETRY]
LIGHTNINGS = [TRAINER, *sorted({path for some in trainer_classes().values() for path in some.values()})]


def imported(path: str) -> Any:
    package, _, name = path.rpartition(".")
    return getattr(importlib.import_module(package), name)


@pytest.mark.parametrize("path", [*OURS, *LIGHTNINGS])
def test_names_types_and_defaults(path: str) -> None:
    kind, known = imported(path), signature(path)
    assert known.names == (path, f"{kind.__module__}.{kind.__qualname__}") == names_of(path)
    parameters = [p for p in inspect.signature(kind.__init__).parameters.values() if p.name != "self"]
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    assert list(known.parameters) == [p.name for p in named]
    if kind.__init__ is not object.__init__:
        assert known.takes_more == any(p.kind == p.VAR_KEYWORD for p in parameters)
    try:
        hints = typing.get_type_hints(kind.__init__)
    except NameError:  # a name of TYPE_CHECKING's
        hints = {}
    for parameter in named:
        read = known.parameters[parameter.name]
        if read.default is REQUIRED:
            assert parameter.default is parameter.empty
        elif read.default is not UNKNOWN:
            assert read.default == parameter.default, parameter.name
        elif path in OURS:
            pytest.fail(f"the default of {parameter.name} is no literal")
        if parameter.name in hints and (words := list(describe(read.kind))):
            assert words == list(describe(hints[parameter.name])), parameter.name
        elif path in OURS and parameter.name in hints:
            assert not list(describe(hints[parameter.name])), f"{parameter.name} could be checked, and is not"


def test_the_trainers_plain_arguments_are_all_understood() -> None:
    """After an update of Lightning that moves an alias, a type would silently be checked no more."""
    left = {name for name, parameter in signature(TRAINER).parameters.items() if not list(describe(parameter.kind))}
    built = {"accelerator", "callbacks", "logger", "plugins", "profiler", "strategy"}
    assert left == built | {"default_root_dir", "max_time", "val_check_interval"}


def test_a_path_that_is_no_class() -> None:
    for path in ("modulators.Nothing", "modulators.attach", "nothing_at_all.Foo", "os.system"):
        with pytest.raises(LookupError):
            signature(path)


def test_what_is_built_is_not_described() -> None:
    assert signature("modulators.ModulatedT5").parameters["modulator"].kind is Built
    assert not list(describe(Built | None))


def test_names_of_lightnings_are_known_to_it() -> None:
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.strategies import StrategyRegistry

    assert set(SHORT_NAMES["trainer.strategy"]) == {"auto", *StrategyRegistry.available_strategies()}
    assert set(ACCELERATORS) == {"auto", "gpu", *AcceleratorRegistry.available_accelerators()}


def test_the_allowlist_holds_classes_alone() -> None:
    """A function, or a module with all that is in it, could be called with what a stranger likes."""
    for path in allowlist():
        assert inspect.isclass(imported(path)), path
