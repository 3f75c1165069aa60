"""Configurations as probes read them: the YAML itself, and its settings by name.

A setting's name is that of the command line without `init_args` and `class_path`: ``model.modulator.initial_alpha``.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def find_config(name: str) -> Path:
    """A configuration by its path, or by a bare name in configs/, as train.py finds it."""
    for path in (Path(name), CONFIGS / name, CONFIGS / f"{name}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.name for path in CONFIGS.glob("*.yaml"))
    hint = near(name, known) or f"; there are {', '.join(known)}"
    raise ValueError(f"--config: no file {name} here or in configs/{hint}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration, as it is written.

    Raises:
        ValueError: it cannot be read, or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read as YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: a configuration is a mapping of keys to values")
    return content


def leaves(node: Any, path: str = "") -> dict[str, Any]:
    """Every value of a configuration, by the name of its setting.

    >>> leaves({"model": {"class_path": "A", "init_args": {"lr": 1}}})
    {'model': 'A', 'model.lr': 1}
    """
    if not isinstance(node, dict):
        return {path: node}
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= leaves(value, setting(f"{path}.{key}".lstrip(".")))
    return found


def setting(option: str) -> str:
    """The name of the setting that an option sets.

    >>> setting("model.modulator.init_args.seed"), setting("model.class_path")
    ('model.modulator.seed', 'model')
    """
    return ".".join(part for part in option.split(".") if part not in ("init_args", "class_path"))


def near(name: str, known: Sequence[str], prefix: str = "") -> str:
    """The end of an error message: the name that was meant, if one is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {prefix}{found[0]}?" if found else ""
