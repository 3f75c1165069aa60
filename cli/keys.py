"""Every key that was given, checked by itself: does it exist, and has its value the right type?

The parser would check them too, but from inside out and after seconds of imports: its message names the innermost key
alone, and lists every type that a value is not. Here a wrong key is named in full, with the file it is in and the
nearest key that exists; classes are looked up among those that may be named, and nothing is imported by name.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cli import own
from cli.arguments import Command, did_you_mean, read_yaml
from cli.sections import (
    GEOMETRY,
    SECTIONS,
    SHORT_NAMES,
    TOP_LEVEL,
    TRAINER,
    data_classes,
    model_classes,
    modulator_classes,
    trainer_classes,
)
from cli.signatures import REQUIRED, Signature, signature
from cli.trainer import AT_LEAST, check_devices
from cli.values import WRONG, describe, either, parsed, read_value, short, takes_names

Node = Mapping[str, Any]

_AT_LEAST = {"seed_everything": 0, **{f"trainer.{name}": value for name, value in AT_LEAST.items()}}
_AT_MOST = {"seed_everything": 2**32 - 1}


class Keys:
    """Goes through configurations and options in their order, since a class named in one decides on later keys.

    Attributes:
        classes: of model, model.modulator and data, and of each section.
        values: mapping with keys of its own, such as ``model`` or ``trainer`` → key → the value that wins.
    """

    def __init__(self) -> None:
        self.known = {"model": model_classes(), "model.modulator": modulator_classes(), "data": data_classes()}
        # Mappings with keys of their own: the sections, and what stands inside a class's arguments.
        self.classes: dict[str, Signature] = {key: signature(path) for key, path in SECTIONS.items()}
        self.groups = {**self.classes, "model.geometry": signature(GEOMETRY)}
        self.values: dict[str, dict[str, Any]] = {}
        self._of_trainer = trainer_classes()
        self._allowed = {name: path for some in self._of_trainer.values() for name, path in some.items()}
        self._named: dict[str, Signature] = {}  # of a trainer's arguments, as far as they are known
        self._resume: Path | None = None
        self._trusted: tuple[own.OwnFile, ...] = ()
        self._where = ""  # the file that is being checked, for messages

    def read(self, command: Command) -> None:
        """Go through a command line.

        Raises:
            ValueError: a key that does not exist, a value of another type, a class that may not be loaded, or no model
                or data at all; in one line.
        """
        self.known["model.modulator"] |= own.modulators(command.trusted)
        self._resume, self._trusted = command.resume, command.trusted
        for config in command.configs:
            self._where = f"{config.path}: "
            self._mapping("", config.content)
        self._where = ""
        for name, value in command.options:
            self._option(name, value)
        for key in ("model", "data"):
            if key not in self.classes:
                raise ValueError(f"{key}: nothing is configured; name a configuration, such as --config field.yaml")
        if "modulator" in self.classes["model"].parameters and "model.modulator" not in self.classes:
            known = ", ".join(self.known["model.modulator"])
            raise ValueError(f"model.modulator is missing; it must be one of {known}")

    def _option(self, name: str, value: str) -> None:
        """``--model.lr 1`` is the same as a configuration that says so."""
        *above, last = name.removesuffix("+").split(".")
        node: Any = read_value(value) if last == "init_args" else value
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
        return self._arguments(path, node)

    def _arguments(self, path: str, node: Node) -> Node:
        arguments = node.get("init_args")
        if isinstance(arguments, str):
            arguments = read_value(arguments)
        if arguments is not None and not isinstance(arguments, Mapping):
            raise ValueError(f"{self._where}{path}.init_args is {short(arguments)}; it must be a mapping")
        flat = {key: value for key, value in node.items() if key not in ("class_path", "init_args")}
        return {**flat, **(arguments or {})}

    def _name_class(self, path: str, name: Any) -> None:
        known = self.known[path]
        found = next((kind for kind in known.values() if name in (*kind.names, kind.name)), None)
        if found is None:
            near = did_you_mean(str(name), known)
            if path == "model.modulator":
                near = own.hint(str(name), self._resume, self._trusted) or near
            raise ValueError(f"{self._where}{path}: {short(name)} is none of {', '.join(known)}{near}")
        if self.classes.get(path, found) is not found:  # what the new class does not know is forgotten
            kept = {key: value for key, value in self.values.get(path, {}).items() if key in found.parameters}
            self.values[path] = kept
            for key in [*self.known, *self.groups]:
                if key.startswith(f"{path}.") and key.removeprefix(f"{path}.") not in found.parameters:
                    self.values.pop(key, None)
                    self.classes.pop(key, None)
        self.classes[path] = found

    def _keys(self, path: str) -> Mapping[str, Any]:
        """Keys that may stand at a place, and their types."""
        if not path:
            return {"model": Any, "data": Any, "trainer": Any, **dict.fromkeys(SECTIONS, Any), **TOP_LEVEL}
        if path == "trainer":
            return _kinds(signature(TRAINER))
        if path in self.known:
            keys = _kinds(self.classes[path]) if path in self.classes else {}
            return {key: kind for key, kind in keys.items() if (path, key) != ("model.modulator", "stream")}
        return _kinds(self.groups[path])

    def _unknown(self, full: str, path: str, keys: Mapping[str, Any], option: str | None) -> None:
        if path in self.known and path not in self.classes:
            raise ValueError(
                f"{self._where}{path}: no class_path is given before its keys; begin with a configuration, such as "
                "--config field.yaml"
            )
        last = full.rpartition(".")[2]
        hint = did_you_mean(last, keys)
        if hint and path:
            hint = hint.replace("mean ", f"mean {path}.", 1)
        elif not hint:
            hint = f"; there are {', '.join(sorted(keys))}" if len(keys) < 20 else ""
        raise ValueError(f"{self._where}{'--' if option else ''}{short(full)} is no key{hint}")

    def _value(self, path: str, value: Any, kind: Any, option: str | None) -> None:
        group, _, key = path.rpartition(".")
        if path in self.known or path == "trainer" or path in self.groups:
            value = self._group(path, value, option)
        elif path in self._of_trainer:
            value = read_value(value) if isinstance(value, str) else value
            self._classes_in(path, path, value, option)
        else:
            if path == "trainer.devices" and not check_devices(value):
                right = "auto, how many devices, or a list of their numbers"
                raise ValueError(f"{self._where}{path} is {short(value)}; it must be {right}")
            if path == "ckpt_path" and value is not None:
                raise ValueError(f"{self._where}{path}: go on with a run by its folder, --resume DIR")
            value = self._plain(path, value, kind)
        self.values.setdefault(group, {})[key] = value

    def _plain(self, path: str, value: Any, kind: Any) -> Any:
        """The value as it will be understood."""
        words = list(dict.fromkeys(describe(kind)))
        if not words:
            value = read_value(value) if isinstance(value, str) else value
            self._refuse_strangers(path, value)
            if isinstance(value, str) and takes_names(kind) and value not in self._allowed:
                raise ValueError(f"{self._where}{path}: {short(value)!r} is not loaded")
            return value
        right = parsed(value, kind)
        if right is WRONG:
            raise ValueError(f"{self._where}{path} is {short(value)}; it must be {either(words)}")
        if isinstance(right, int | float) and not isinstance(right, bool):
            smallest, largest = _AT_LEAST.get(path), _AT_MOST.get(path)
            if smallest is not None and not right >= smallest:  # nor is NaN
                raise ValueError(f"{self._where}{path} is {short(value)}; it must be at least {smallest}")
            if largest is not None and not right <= largest:
                raise ValueError(f"{self._where}{path} is {short(value)}; it must be at most {largest}")
        return right

    def _group(self, path: str, value: Any, option: str | None) -> Any:
        """What stands where a mapping belongs."""
        if isinstance(value, str):
            value = read_value(value)
        if isinstance(value, str) and os.path.isfile(value):  # a mapping in a file of its own
            where, self._where = self._where, f"{value}: "
            self._mapping(path, read_yaml(Path(value)), option)
            self._where = where
        elif isinstance(value, Mapping):
            self.values.setdefault(path, {})
            self._mapping(path, value, option)
        elif isinstance(value, str) and path in self.known:
            self._name_class(path, value)
        elif value is not None:
            raise ValueError(f"{self._where}{path} is {short(value)}; it must be a mapping of keys to values")
        else:
            self.values.pop(path, None)
        return value

    # What a trainer may be built of

    def _classes_in(self, path: str, key: str, value: Any, option: str | None) -> None:
        """Checks the classes that a trainer's argument names, in a list or alone, and their arguments.

        Args:
            path: of the value, for messages.
            key: the trainer's argument that it belongs to.
        """
        if isinstance(value, str) and os.path.isfile(value):
            value = dict(read_yaml(Path(value)))
        if value is None or isinstance(value, bool):
            return
        if isinstance(value, list):
            for item in value:
                self._classes_in(path, key, item, option)
        elif isinstance(value, str):
            if value.lower() not in SHORT_NAMES.get(key, ()):
                self._named[path] = self._allowed_class(path, key, value)
        elif isinstance(value, Mapping):
            if (name := value.get("class_path")) is not None:
                self._named[path] = self._allowed_class(path, key, name)
            self._arguments_of(path, self._arguments(path, value), option)
        else:
            raise ValueError(f"{self._where}{path} is {short(value)}; it must be the name of a class")

    def _allowed_class(self, path: str, key: str, name: Any) -> Signature:
        known = self._of_trainer[key]
        found = known.get(str(name)) or next((p for p in known.values() if p.rpartition(".")[2] == name), None)
        if found is None:
            classes = [path.rpartition(".")[2] for path in sorted(set(known.values()))]
            words = SHORT_NAMES.get(key, ())
            near = did_you_mean(str(name).rpartition(".")[2], [*words, *classes])
            plain = [*words[:4], *classes]
            raise ValueError(
                f"{self._where}{path}: {short(name)!r} is not loaded{near or '; there are ' + ', '.join(plain)}"
            )
        return signature(found)

    def _arguments_of(self, path: str, arguments: Node, option: str | None) -> None:
        kind = self._named.get(path)
        for key, value in arguments.items():
            if kind is None or (key not in kind.parameters and (kind.takes_more or key == "dict_kwargs")):
                self._refuse_strangers(f"{path}.{key}", value)
            elif key not in kind.parameters:
                self._unknown(f"{path}.{key}", path, _kinds(kind), option)
            else:
                self._plain(f"{path}.{key}", value, kind.parameters[key].kind)

    def _refuse_strangers(self, path: str, value: Any) -> None:
        """Whatever names a class, at any depth, must name one that may be loaded."""
        for name in _class_paths(value):
            if str(name) not in self._allowed:
                raise ValueError(f"{self._where}{path}: {short(name)!r} is not loaded")


def _class_paths(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield value["class_path"]
        for inner in value.values():
            yield from _class_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths(inner)


def _kinds(kind: Signature) -> dict[str, Any]:
    return {name: parameter.kind for name, parameter in kind.parameters.items()}


def missing(kind: Signature, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Arguments that must be given and are not, with their types."""
    for name, parameter in kind.parameters.items():
        if parameter.default is REQUIRED and name not in given:
            yield name, parameter.kind


__all__ = ["Keys", "missing"]
