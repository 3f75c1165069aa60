"""Backbone sizes from config.json, and checks of layer indices. Imports no torch."""

import json
import operator
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from modulant.assets import resolve_backbone

SUPPORTED = ("t5", "mt5", "umt5")  # values of model_type


def check_positive(name: str, value: int) -> None:
    """Check that `value` is an integer of at least 1.

    Raises:
        ValueError: it is not.
    """
    number = as_index(value)
    if number is None or number < 1:
        raise ValueError(f"{name} is {value}; it must be a positive integer")


def check_layers(layers: object, n_blocks: int, name: str = "layers", stack: str = "encoder") -> list[int]:
    """Return the blocks that `layers` names, ascending; all of them if None.

    Raises:
        ValueError: `layers` are not distinct indices of the blocks, or empty.
    """
    if layers is None:
        return list(range(n_blocks))
    if isinstance(layers, str) or not isinstance(layers, Iterable):
        raise ValueError(f"{name} is {layers!r}; it must be a list of layers, such as [0, 1]")
    chosen = []
    for given in layers:
        if (layer := as_index(given)) is None:
            raise ValueError(f"{name} holds {given!r}, a {type(given).__name__}; a layer must be an integer")
        if not 0 <= layer < n_blocks:
            raise ValueError(
                f"{name}: layer {layer} does not exist; the {stack} has {n_blocks} layer{'s' * (n_blocks > 1)}, "
                f"0 … {n_blocks - 1}"
            )
        chosen.append(layer)
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"{name} is {chosen}; it must name at least one layer, each once")
    return sorted(chosen)


def as_index(value: object) -> int | None:
    """A Python integer, of an integer of any library; None for anything else, ``True`` included."""
    try:
        return None if type(value).__name__.startswith("bool") else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


@dataclass(frozen=True)
class Sizes:
    """Width of the stream and number of encoder blocks."""

    d_model: int
    n_layers: int


def check_backbone(backbone: str) -> None:
    """Check that a backbone given as an absolute or explicitly relative path exists.

    Raises:
        ValueError: there is no such folder.
    """
    name = resolve_backbone(backbone)
    if not os.path.isdir(name) and (Path(name).is_absolute() or name.startswith(".")):
        raise ValueError(
            f"model.backbone: no folder {backbone}; it must be 'mini', a folder or a hub id (google-t5/t5-small)"
        )


def check_model_type(backbone: str, model_type: str) -> None:
    """Check that a backbone's model type is supported.

    Raises:
        ValueError: it is not a T5.
    """
    if model_type not in SUPPORTED:
        raise ValueError(f"model.backbone: {backbone!r} is a {model_type}; it must be one of {', '.join(SUPPORTED)}")


def read_sizes(backbone: str) -> Sizes | None:
    """Read the sizes from a folder's config.json; None if that is not possible without transformers.

    Raises:
        ValueError: there is no such folder, or its model is not a T5.
    """
    check_backbone(backbone)
    try:
        config = json.loads((Path(resolve_backbone(backbone)) / "config.json").read_text(encoding="utf-8"))
        kind, width, layers = config["model_type"], config.get("d_model"), config.get("num_layers")
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    check_model_type(backbone, str(kind))
    return Sizes(width, layers) if isinstance(width, int) and isinstance(layers, int) else None
