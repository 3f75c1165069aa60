"""Configurations and options merged into one, each key and value checked against cli/schema.json.

The parser would check them too, but from inside out and after seconds of imports. Here a wrong key is named in full,
with the file it is in and the nearest key that exists. What comes out is what the parser is given: one mapping, in
which each class has the full name that it is imported by, so that nothing is understood in two ways.
"""

import difflib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cli.configuration.files import read_value, read_yaml
from cli.configuration.own import KIND
from modulant.settings import accepts, describe

Schema = dict[str, Any]
_FILE = Path(__file__).parents[1] / "schema.json"


class Place(NamedTuple):
    """A place in a configuration.

    Attributes:
        schema: of its arguments.
        values: its arguments as they will be: what was given, else the defaults.
        name: full name of its class; "" where there is none.
    """

    schema: Schema
    values: dict[str, Any]
    name: str


@cache
def load() -> Schema:
    """The schema as it is committed; `scripts/schema.py` writes it."""
    content: Schema = json.loads(_FILE.read_text(encoding="utf-8"))
    return content


class Merged:
    """A configuration that grows by files and options, in their order: a class named in one decides on later keys.

    Args:
        supplied: name → schema of its arguments, of user-supplied modulators and objectives.

    Attributes:
        config: what the parser is given.
    """

    def __init__(self, supplied: Mapping[str, Schema]) -> None:
        self._schema = load()
        self._defs: dict[str, Schema] = {**self._schema["$defs"], **supplied}
        self._supplied = supplied
        self.config: dict[str, Any] = {}

    def add(self, content: Mapping[str, Any], where: str = "", option: bool = False) -> None:
        """Merge a mapping; later values win, and a new class forgets the arguments that only the old one has.

        Args:
            content: of a file, or of an option, nested as in a file.
            where: prefix of messages, such as the file's name.
            option: values are text that is still to be read.

        Raises:
            ValueError: an unknown key, a value that does not fit, or a class that may not be named; in one line.
        """
        self._where, self._option = where, option
        self.config = self._mapping("", self._schema, self.config, content)

    def add_option(self, name: str, value: str) -> None:
        """Merge ``--model.lr 1``, which is the same as a file that says so.

        Raises:
            ValueError: as `add` does.
        """
        *above, last = name.split(".")
        node: Any = read_value(value) if last == "init_args" else value
        for key in (last, *reversed(above)):
            node = {key: node}
        self.add(node, option=True)

    def at(self, path: str) -> Place:
        """A place such as ``model.modulator``; empty where no class is named there yet, or none can be."""
        schema, node, name = self._schema, self.config, ""
        for key in path.split("."):
            own = schema.get("properties", {}).get(key, {})
            node = node[key] if isinstance(node.get(key), dict) else {}
            if self._classes(own):
                name = node.get("class_path", "")
                schema, node = self._defs.get(name, {}), node.get("init_args", {})
            else:
                schema, name = self._group(own) or {}, ""
        defaults = {k: own["default"] for k, own in schema.get("properties", {}).items() if "default" in own}
        return Place(schema, defaults | node, name)

    def missing(self) -> Iterator[tuple[str, Schema]]:
        """Settings that are required and not given, with their schemas."""
        for path, name, values in self.classes():
            schema = self._defs[name]
            for key in schema.get("x-required", ()):
                if key not in values:
                    yield f"{path}.{key}", schema["properties"][key]

    def classes(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Each class that is named, at any depth: where, its full name, its arguments as they were given."""
        yield from self._named_in("", self.config)

    def _named_in(self, path: str, node: Any) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        if isinstance(node, list):
            for item in node:
                yield from self._named_in(path, item)
        elif isinstance(node, Mapping):
            if (name := node.get("class_path")) in self._defs:
                node = {**node.get("init_args", {}), **node.get("dict_kwargs", {})}
                yield path, str(name), node
            for key, inner in node.items():
                yield from self._named_in(f"{path}.{key}" if path else str(key), inner)

    def keys(self) -> list[str]:
        """Every key that may be given, in full, as the classes stand that have been named."""
        found = []
        for key, schema in self._schema["properties"].items():
            found.append(key)
            found += [f"{key}.{inner}" for inner in self._inner(key, schema)]
        return found

    def _inner(self, path: str, schema: Schema) -> Iterator[str]:
        own = self.at(path).schema if self._classes(schema) else self._group(schema)
        for key, inner in (own or {}).get("properties", {}).items():
            yield key
            if self._classes(inner) or self._group(inner):
                yield from (f"{key}.{name}" for name in self._inner(f"{path}.{key}", inner))

    # Reading the schema

    def _resolved(self, schema: Schema) -> Schema:
        if "$ref" in schema:
            return self._defs[schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
        return schema

    def _options(self, schema: Schema) -> list[Schema]:
        schema = self._resolved(schema)
        return [self._resolved(option) for option in schema.get("anyOf", [schema])]

    def _classes(self, schema: Schema) -> dict[str, Schema]:
        """Full name → schema of the arguments, of the classes that may stand at a place."""
        found = {}
        for option in self._options(schema):
            if "class_path" in option.get("properties", {}):
                name = option["properties"]["class_path"]["enum"][0]
                found[name] = self._defs[name]
        for kind, one in (("Modulator", "modulators.FieldModulator"), ("Objective", "modulators.LemmaObjective")):
            if one in found:
                found |= {name: own for name, own in self._supplied.items() if own.get(KIND) == kind}
        return found

    def _group(self, schema: Schema) -> Schema | None:
        """Schema of a mapping that names no class."""
        return next(
            (o for o in self._options(schema) if "properties" in o and "class_path" not in o["properties"]), None
        )

    # Merging

    def _mapping(self, path: str, schema: Schema, old: Any, new: Mapping[str, Any]) -> dict[str, Any]:
        merged = dict(old) if isinstance(old, Mapping) else {}
        for raw, value in new.items():
            name = str(raw)
            key, append = name.removesuffix("+"), name.endswith("+")
            inner = f"{path}.{key}" if path else key
            if key in schema["properties"]:
                own = schema["properties"][key]
                before = merged.get(key)
                merged[key] = self._value(inner, own, None if append else before, value)
                if append:
                    merged[key] = [*as_list(before), *as_list(merged[key])]
            elif schema.get("additionalProperties"):  # a class that takes any keyword
                self._refuse_strangers(inner, value)
                merged[key] = read_value(value) if self._option and isinstance(value, str) else value
            else:
                raise ValueError(self._unknown(inner, list(schema["properties"])))
        return merged

    def _value(self, path: str, schema: Schema, old: Any, new: Any) -> Any:
        if path == "ckpt_path" and new is not None:
            raise ValueError(f"{self._where}{path}: resume a run by its folder, --resume DIR")
        classes, group = self._classes(schema), self._group(schema)
        items = next((o["items"] for o in self._options(schema) if self._classes(o.get("items", {}))), None)
        nested = bool(classes) or group is not None or items is not None
        if nested and isinstance(new, str):
            new = self._read(new)
        if isinstance(new, list) and items is not None:
            return [self._value(path, items, None, item) for item in new]
        if isinstance(new, Mapping) and classes:
            if "class_path" not in new and isinstance(old, list) and old:  # of the one that was appended last
                return [*old[:-1], self._object(path, classes, old[-1], new)]
            return self._object(path, classes, old, new)
        if isinstance(new, Mapping) and group is not None:
            return self._mapping(path, group, old, new)
        fitting = self._fitting(schema, new)
        if fitting is not _NONE:
            return fitting
        if isinstance(new, str) and classes:
            words = [word for o in self._options(schema) for word in o.get("enum", ())]
            return self._object(path, classes, old, {"class_path": new}, words)
        raise ValueError(f"{self._where}{path} is {short(new)}; it must be {self._words(schema, nested)}")

    def _read(self, text: str) -> Any:
        """An option's text where a mapping or a class belongs: YAML, or the name of a file that holds it."""
        value = read_value(text)
        return dict(read_yaml(Path(value))) if isinstance(value, str) and os.path.isfile(value) else value

    def _words(self, schema: Schema, nested: bool) -> str:
        if not nested:
            return describe(self._resolved(schema))
        plain = [o for o in self._options(schema) if "properties" not in o and o.get("type") not in ("array", "null")]
        return " or ".join(["a mapping of keys to values", *(describe(option) for option in plain)])

    def _object(
        self, path: str, classes: Mapping[str, Schema], old: Any, new: Mapping[str, Any], words: Sequence[str] = ()
    ) -> dict[str, Any]:
        """A class and its arguments; `words` may stand in its place."""
        before = old if isinstance(old, Mapping) else {}
        name = before.get("class_path")
        if (given := new.get("class_path")) is not None:
            name = self._named(path, str(given), classes, words)
        if name is None:
            known = ", ".join(_shown(full) for full in classes)
            raise ValueError(
                f"{self._where}{path}: no class is named, whose keys these would be; it must be one of {known}"
            )
        properties = classes[name]["properties"]
        kept = {key: value for key, value in before.get("init_args", {}).items() if key in properties}
        if name != before.get("class_path"):  # a value that only the old class knew, such as null for its own default
            kept = {key: value for key, value in kept.items() if self._fits(properties[key], value)}
        arguments = new.get("init_args")
        if self._option and isinstance(arguments, str):
            arguments = read_value(arguments)
        if arguments is not None and not isinstance(arguments, Mapping):
            raise ValueError(f"{self._where}{path}.init_args is {short(arguments)}; it must be a mapping")
        flat = {key: value for key, value in new.items() if key not in ("class_path", "init_args", "dict_kwargs")}
        merged = {
            "class_path": name,
            "init_args": self._mapping(path, classes[name], kept, {**flat, **(arguments or {})}),
        }
        if more := new.get("dict_kwargs", before.get("dict_kwargs")):
            self._refuse_strangers(path, more)
            merged["dict_kwargs"] = more
        return merged

    def _named(self, path: str, name: str, classes: Mapping[str, Schema], words: Sequence[str]) -> str:
        """A class by its full name, its name alone, or its name in another module of the same package."""
        root, _, last = name.partition(".")[0], *name.rpartition(".")[1:]
        for full in classes:
            if name == full or (last == full.rpartition(".")[2] and root in (last, full.partition(".")[0])):
                return full
        shown = {full.rpartition(".")[2]: _shown(full) for full in classes}
        near = difflib.get_close_matches(last, [*words, *shown], n=1, cutoff=0.6)
        hint = f"; did you mean {shown.get(near[0], near[0])}?" if near else ""
        known = [*words[:4], *(["…"] if len(words) > 4 else []), *shown.values()]
        raise UnlistedClassError(f"{self._where}{path}: {short(name)} is none of {', '.join(known)}", hint, path, name)

    def _fitting(self, schema: Schema, value: Any) -> Any:
        """The value as it fits the schema, or `_NONE`. Text may be a number to Python that is none to YAML, 1e-4."""
        plain = self._plain(schema)
        candidates = [value]
        if isinstance(value, str):
            number = _number(value)
            candidates = [read_value(value), value] if self._option else [value, read_value(value)]
            if self._option and value and candidates[0] is None:  # null where only a text would fit is no text
                candidates.pop()
            candidates += [] if number is None else [number]
        for candidate in candidates:
            if accepts(plain, candidate):
                self._refuse_strangers("", candidate)
                return candidate
        return _NONE

    def _fits(self, schema: Schema, value: Any) -> bool:
        return isinstance(value, Mapping | list) or accepts(self._plain(schema), value)

    def _plain(self, schema: Schema) -> Schema:
        """The alternatives that are plain values."""
        options = [o for o in self._options(schema) if "properties" not in o and not self._classes(o.get("items", {}))]
        return {"anyOf": options}

    def _refuse_strangers(self, path: str, value: Any) -> None:
        """Whatever names a class, at any depth, must name one that is listed."""
        for name in class_paths(value):
            if str(name) not in self._defs:
                raise UnlistedClassError(
                    f"{self._where}{path}: {short(name)} is not a class that may be named", "", path, str(name)
                )

    def _unknown(self, full: str, siblings: Sequence[str]) -> str:
        above, _, last = full.rpartition(".")
        near = difflib.get_close_matches(last, siblings, n=1, cutoff=0.6)
        everywhere = self.keys()
        by_name = {key.rpartition(".")[2]: key for key in sorted(everywhere, key=lambda key: -key.count("."))}
        if near:
            hint = f"; did you mean {above}.{near[0]}?" if above else f"; did you mean {near[0]}?"
        elif elsewhere := difflib.get_close_matches(last, by_name, n=1, cutoff=0.85):
            hint = f"; did you mean {by_name[elsewhere[0]]}?"
        else:
            hint = f"; there are {', '.join(sorted(siblings))}" if len(siblings) < 20 else ""
        return f"{self._where}{'--' if self._option else ''}{short(full)} is not a key{hint}"


class UnlistedClassError(ValueError):
    """A class that may not be named; `hint` is the end of its message.

    Attributes:
        path: where it is named.
        name: as it was given.
    """

    def __init__(self, text: str, hint: str, path: str, name: str) -> None:
        super().__init__(text + hint)
        self.text, self.path, self.name = text, path, name


class _Missing:
    pass


_NONE = _Missing()


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def as_list(value: Any) -> list[Any]:
    """A setting that may be one thing, several, or null, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def class_paths(value: Any) -> Iterator[Any]:
    """What is named as a class, at any depth."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield value["class_path"]
        for inner in value.values():
            yield from class_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from class_paths(inner)


def _shown(full: str) -> str:
    """A class as a message names it."""
    return full.rpartition(".")[2] if full.startswith("lightning.") else full


def short(value: Any, most: int = 60) -> str:
    """A value for a message, cut where it is long.

    >>> short("a" * 70)[-3:], len(short("a" * 70)), short(None), short("")
    ('aa…', 58, 'null', "''")
    """
    text = "null" if value is None else str(value) or "''"
    return text if len(text) <= most else text[: most - 3] + "…"
