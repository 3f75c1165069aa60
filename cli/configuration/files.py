"""Configurations as files: found by name, read as YAML, refused where they are no plain mapping of keys to values."""

import difflib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# A configuration has some hundred values; a list of prompts may be longer.
_LARGEST = 2**20  # bytes
_MOST_VALUES = 20_000
# What a pipe held, for the processes that Lightning starts for further devices: they run the command line again, and a
# pipe can be read once. It begins with the number of the process that set it, and means nothing but to its children.
_PIPED = "MODULANT_PIPED_CONFIG"


@dataclass(frozen=True)
class Config:
    """A YAML file, as it was named and as it was read."""

    name: str
    path: Path
    content: Mapping[str, Any]

    @classmethod
    def read(cls, name: str) -> "Config":
        """The file of that path, or of that bare name in configs/.

        Raises:
            ValueError: there is none, or it is no configuration.
        """
        path = find_config(name)
        return cls(name, path, read_yaml(path))


def find_config(name: str) -> Path:
    """A configuration by its path, or by a bare name in configs/; a pipe such as /dev/stdin will do.

    Raises:
        ValueError: there is none.
    """
    if name in _piped(os.getppid()):
        return Path(name)
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if os.path.exists(path) and not os.path.isdir(path):  # False, too, for a name that no file can have
            return path
    known = sorted(path.relative_to(CONFIGS).as_posix() for path in configurations())
    near = did_you_mean(name.removesuffix(".yaml"), [file.removesuffix(".yaml") for file in known])
    hint = near.replace("?", ".yaml?")
    there_are = "; there are " + ", ".join(file for file in known if "/" not in file) + ", controls/…"
    raise ValueError(f"--config: no file {name} here or in configs/{hint or there_are}")


def configurations() -> list[Path]:
    """The files in configs/ that configure a run; those in sweeps/ say what to search."""
    return [path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "sweeps"]


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The mapping in a file. Tags that would build objects are errors in it, as in any safe reading of YAML.

    Raises:
        ValueError: it cannot be read, is no mapping, has a key twice, or is larger than a configuration can be.
    """
    try:
        text = _text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({_one_line(error)})") from error
    if len(text) > _LARGEST:
        raise ValueError(f"{path}: larger than a configuration can be ({_LARGEST // 2**20} MiB)")
    try:
        content = _load(text)
        check_size(content)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ValueError(f"{path}{where}: invalid YAML: {error.problem}") from error
    except RecursionError as error:
        raise ValueError(f"{path}: cannot be read as YAML (nested too deeply)") from error
    except (yaml.YAMLError, ValueError) as error:  # a number or a date that is none raises ValueError
        raise ValueError(f"{path}: cannot be read as YAML ({_one_line(error)})") from error
    if not isinstance(content, dict):
        found = "an empty file" if content is None else "a list" if isinstance(content, list) else repr(content)
        raise ValueError(f"{path}: a configuration is a mapping of keys to values, got {found}")
    return content


def read_value(text: str) -> Any:
    """The value of an option, as YAML; the text itself where it is none.

    Raises:
        ValueError: more values, aliases written out, than a configuration can have.
    """
    try:
        value = _load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    check_size(value)
    return value


def check_size(content: Any) -> None:
    """Refuse a value that aliases of aliases make larger than a configuration can be.

    Raises:
        ValueError: more values, aliases written out, than a configuration can have.
    """
    left, budget = [content], _MOST_VALUES
    while left:
        node = left.pop()
        budget -= 1
        if budget < len(left):
            raise ValueError(f"more than {_MOST_VALUES:,} values, aliases written out")
        if isinstance(node, dict):
            left += [*node, *node.values()]
        elif isinstance(node, list | tuple | set):
            left += node


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message: the nearest of the names that exist, if one is near.

    >>> did_you_mean("feld.yaml", ["field.yaml", "lerp.yaml"])
    '; did you mean field.yaml?'
    >>> did_you_mean("nothing", ["field.yaml"])
    ''
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


class _Loader(yaml.SafeLoader):
    """YAML's safe types, and an error where a key stands twice: the standard keeps the last one, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and isinstance(key, yaml.ScalarNode) and key.value != "<<":
                problem = f"{key.value} stands twice, in lines {seen[key.value]} and {line}"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if isinstance(key, yaml.ScalarNode):
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def _load(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _text(path: Path) -> str:
    if (kept := _piped(os.getppid()).get(str(path))) is not None:
        return kept
    regular = stat.S_ISREG(path.stat().st_mode)
    with path.open(encoding="utf-8") as file:
        text = file.read(_LARGEST + 1)
    if not regular and len(text) < 2**16:  # what an environment takes
        os.environ[_PIPED] = f"{os.getpid()}:{json.dumps(_piped(os.getpid()) | {str(path): text})}"
    return text


def _piped(process: int) -> dict[str, str]:
    """Name → text of the pipes that a process has read."""
    number, _, kept = os.environ.get(_PIPED, "").partition(":")
    return dict(json.loads(kept)) if number == str(process) else {}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
