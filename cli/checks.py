"""Every key that was given, checked by itself: does it exist, and has its value the right type?

The parser would check them too, but from inside out: its message names the innermost key alone, lists every type that
a value is not, and may import a module that a configuration names. Here a wrong key is named in full, with the file it
is in and the nearest key that exists; classes are looked up among those there are, and nothing is imported by name.
"""

import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal

import lightning.pytorch as pl
import yaml
from jsonargparse import ArgumentError, ArgumentParser

import datamodules
import modulators
from cli.arguments import Command, did_you_mean
from modulators import Geometry, Modulator

Node = Mapping[str, Any]

_SIMPLE: dict[Any, str] = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "a text",
    NoneType: "null",
}
# Ranges that Lightning does not check, or not in words that name the key: the smallest value that is right.
_AT_LEAST = {
    "trainer.accumulate_grad_batches": 1,
    "trainer.check_val_every_n_epoch": 1,
    "trainer.gradient_clip_val": 0,
    "trainer.limit_predict_batches": 0,
    "trainer.limit_test_batches": 0,
    "trainer.limit_train_batches": 0,
    "trainer.limit_val_batches": 0,
    "trainer.log_every_n_steps": 0,
    "trainer.max_epochs": -1,
    "trainer.max_steps": -1,
    "trainer.num_nodes": 1,
    "seed_everything": 0,
}
_DEVICES = re.compile(r"auto|-1|[1-9]\d*|\[?\d+(, ?\d+)*,?\]?")


def model_classes() -> dict[str, type]:
    """Name in a configuration → LightningModule."""
    return _exported(modulators, pl.LightningModule)


def data_classes() -> dict[str, type]:
    """Name in a configuration → LightningDataModule."""
    return _exported(datamodules, pl.LightningDataModule)


def modulator_classes() -> dict[str, type]:
    """Name in a configuration → Modulator."""
    return _exported(modulators, Modulator)


def _exported(package: Any, base: type) -> dict[str, type]:
    found = ((name, getattr(package, name)) for name in package.__all__)
    return {
        f"{package.__name__}.{name}": value
        for name, value in found
        if isinstance(value, type) and issubclass(value, base) and not inspect.isabstract(value)
    }


class Checker:
    """Goes through configurations and options in their order, since a class named in one decides on later keys.

    Args:
        sections: key → class of what is configured by its own section.
        others: further keys of the top level.
    """

    def __init__(self, sections: Mapping[str, type], others: Mapping[str, Any]) -> None:
        self.sections = sections
        self.others = others
        self.classes: dict[str, type] = {}  # of model, model.modulator and data, as far as they are known
        self.where = ""  # the file that is being checked, for messages
        # Mappings with keys of their own: the sections, and what stands inside a class's arguments.
        self.groups: dict[str, type] = {**sections, "model.geometry": Geometry}
        self.known = {"model": model_classes(), "model.modulator": modulator_classes(), "data": data_classes()}

    def check(self, command: Command) -> None:
        """Check a command line.

        Raises:
            ValueError: a key that does not exist, a value of another type, a class that may not be loaded, or no model
                or data at all; in one line.
        """
        for config in command.configs:
            self.where = f"{config.path}: "
            self._mapping("", config.content)
        self.where = ""
        for name, value in command.options:
            self._option(name, value)
        for key in ("model", "data"):
            if key not in self.classes:
                raise ValueError(f"{key}: nothing is configured; name a configuration, such as --config field.yaml")
        if "modulator" in _parameters(self.classes["model"]) and "model.modulator" not in self.classes:
            known = ", ".join(self.known["model.modulator"])
            raise ValueError(f"model.modulator is missing; it must be one of {known}")

    def _option(self, name: str, value: str) -> None:
        """``--model.lr 1`` is the same as a configuration that says so."""
        *above, last = name.removesuffix("+").split(".")
        node: Any = _read_value(value) if last == "init_args" else value
        for key in (last, *reversed(above)):
            node = {key: node}
        self._mapping("", node, option=name)

    def _mapping(self, path: str, node: Node, option: str | None = None) -> None:
        if path in self.known:
            node = self._class_of(path, node)
        keys = self._keys(path)
        for raw, value in node.items():
            key = str(raw).removesuffix("+")
            inner = f"{path}.{key}" if path else key
            if key not in keys:
                self._unknown(inner, path, keys, option)
            self._value(inner, value, keys[key], option)

    def _class_of(self, path: str, node: Node) -> Node:
        """Notes the class that a node names, and returns its arguments."""
        if (name := node.get("class_path")) is not None:
            self._name_class(path, name)
        arguments = node.get("init_args")
        if arguments is not None and not isinstance(arguments, Mapping):
            raise ValueError(f"{self.where}{path}.init_args is {_short(arguments)}; it must be a mapping")
        flat = {key: value for key, value in node.items() if key not in ("class_path", "init_args")}
        return {**flat, **(arguments or {})}

    def _name_class(self, path: str, name: Any) -> None:
        known = self.known[path]
        full = {str(name), *(key for key in known if key.rpartition(".")[2] == name)}
        full |= {key for key, value in known.items() if name == f"{value.__module__}.{value.__qualname__}"}
        found = sorted(full & known.keys())
        if not found:
            near = did_you_mean(str(name), known)
            raise ValueError(f"{self.where}{path}: {_short(name)} is none of {', '.join(known)}{near}")
        self.classes[path] = known[found[0]]

    def _keys(self, path: str) -> Mapping[str, Any]:
        """Keys that may stand at a place, and their types."""
        if not path:
            return {"model": Any, "data": Any, "trainer": Any, **dict.fromkeys(self.sections, Any), **self.others}
        if path == "trainer":
            return _parameters(pl.Trainer)
        if path in self.known:
            keys = _parameters(self.classes[path]) if path in self.classes else {}
            return {key: kind for key, kind in keys.items() if (path, key) != ("model.modulator", "stream")}
        return _parameters(self.groups[path])

    def _unknown(self, full: str, path: str, keys: Mapping[str, Any], option: str | None) -> None:
        if path in self.known and path not in self.classes:
            raise ValueError(
                f"{self.where}{path}: no class_path is given before its keys; begin with a configuration, such as "
                "--config field.yaml"
            )
        last = full.rpartition(".")[2]
        hint = did_you_mean(last, keys)
        if hint and path:
            hint = hint.replace("mean ", f"mean {path}.", 1)
        elif not hint:
            hint = f"; there are {', '.join(sorted(keys))}" if len(keys) < 20 else ""
        raise ValueError(f"{self.where}{'--' if option else ''}{full} is no key{hint}")

    def _value(self, path: str, value: Any, kind: Any, option: str | None) -> None:
        if path in self.known or path == "trainer" or path in self.groups:
            self._group(path, value, option)
            return
        if path == "trainer.devices" and not _DEVICES.fullmatch(str(value)):
            right = "auto, how many devices, or a list of their numbers"
            raise ValueError(f"{self.where}{path} is {_short(value)}; it must be {right}")
        if path == "ckpt_path" and value is not None:
            raise ValueError(f"{self.where}{path}: go on with a run by its folder, --resume DIR")
        words = list(dict.fromkeys(describe(kind)))
        if not words:
            return
        parsed = _parsed(value, kind)
        if parsed is _WRONG:
            raise ValueError(f"{self.where}{path} is {_short(value)}; it must be {_either(words)}")
        smallest = _AT_LEAST.get(path)
        if smallest is not None and isinstance(parsed, int | float) and parsed < smallest:
            raise ValueError(f"{self.where}{path} is {_short(value)}; it must be at least {smallest}")

    def _group(self, path: str, value: Any, option: str | None) -> None:
        """What stands where a mapping belongs."""
        if isinstance(value, str):
            value = _read_value(value)
        if isinstance(value, Mapping):
            self._mapping(path, value, option)
        elif isinstance(value, str) and Path(value).is_file():
            return  # a mapping in a file of its own: the parser reads it
        elif isinstance(value, str) and path in self.known:
            self._name_class(path, value)
        elif value is not None:
            raise ValueError(f"{self.where}{path} is {_short(value)}; it must be a mapping of keys to values")


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


def _either(words: list[str]) -> str:
    return f"one of {', '.join(words)}" if len(words) > 3 else " or ".join(words)


class _Wrong:
    pass


_WRONG = _Wrong()


def _parsed(value: Any, kind: Any) -> Any:
    """A value as the parser will understand it, or `_WRONG`."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=kind)
    try:
        if isinstance(value, str):
            return parser.parse_args([f"--value={value}"]).value
        return parser.parse_object({"value": value}).value
    except (ArgumentError, TypeError, ValueError):
        return _WRONG


def _parameters(kind: type) -> Mapping[str, Any]:
    """Constructor arguments and their types; Any where a type cannot be read."""
    signature = inspect.signature(kind.__init__)  # type: ignore[misc]
    try:
        hints = typing.get_type_hints(kind.__init__)  # type: ignore[misc]
    except (NameError, TypeError):
        hints = {}
    return {name: hints.get(name, Any) for name in list(signature.parameters)[1:]}


def _read_value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"
