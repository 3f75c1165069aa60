"""Families of transformers: where the stack, its blocks, embeddings and final norm are, and what their sizes are.

One short page a group of alike families. A family is found by a configuration's ``model_type`` and checked by the types
of the modules. Nothing here imports transformers: names of classes are compared.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from modulant.backbones.families.base import Family, Parts, Shape
from modulant.backbones.families.bert import BERTS
from modulant.backbones.families.causal import CAUSAL
from modulant.backbones.families.images import IMAGES
from modulant.backbones.families.t5 import T5S
from modulant.backbones.stream import ResidualStream

__all__ = ["FAMILIES", "Family", "Parts", "Shape", "family_of", "known_families", "parts_of", "stream_of"]

# Of a model type with several sides, the first is the default.
FAMILIES: tuple[Family, ...] = (*T5S, *BERTS, *CAUSAL, *IMAGES)


def known_families() -> str:
    """Model types that `FAMILIES` holds, for messages."""
    return ", ".join(dict.fromkeys(family.model_type for family in FAMILIES))


def family_of(config: Any, side: str | None = None) -> tuple[Family, Any]:
    """The family of a configuration, and the configuration that holds its sizes.

    That is the configuration itself, or a part of it: the text model of one with several modalities, a tower of CLIP.

    Args:
        config: of transformers.
        side: ``decoder`` of a T5, ``vision`` of a CLIP; None: its encoder, its text tower, the only stack of others.

    Raises:
        ValueError: an unknown family, or one without this side.
    """
    sides: list[str] = []
    for own in _configurations(config, side):
        for family in FAMILIES:
            if family.model_type == own.model_type:
                if side in (None, family.side):
                    return family, own
                sides.append(repr(family.side))
    named = getattr(config, "model_type", None)
    if sides:
        raise ValueError(f"side is {side!r}; of a {named} it must be {' or '.join(sides)}, or left out")
    raise ValueError(f"{named!r} is no known family of transformers; known are {known_families()}")


def parts_of(model: nn.Module, side: str | None = None) -> Parts:
    """Find the stack of a model, with or without a head, and its blocks.

    Args:
        model: of transformers, as ``AutoModel…`` loads it, or a wrapper with its ``config``.
        side: as of `family_of`.

    Raises:
        ValueError: an unknown family, a side that it does not have, or modules that are not that family's.
    """
    config = getattr(model, "config", None)
    if config is None:
        raise ValueError(f"a {type(model).__name__} has no config; a model of transformers is needed")
    family, own = family_of(config, side)
    found = [parts for module in model.modules() if (parts := family.parts(module, own)) is not None]
    if len(found) != 1:
        raise ValueError(
            f"a {type(model).__name__} has {len(found)} modules that are a {family.stack} with {family.block}s in "
            f"{family.blocks}; of a {family.model_type} it must have one"
        )
    return found[0]


def stream_of(config: Any, side: str | None = None) -> ResidualStream:
    """Sizes of the stream of any known family, from its configuration.

    A stack that reads images has no vocabulary; its stream has a vocabulary of 1.

    Args:
        config: of transformers.
        side: as of `family_of`.

    Raises:
        ValueError: an unknown family, or one without this side.
    """
    family, own = family_of(config, side)
    return family.shape(own).stream


def _configurations(config: Any, side: str | None) -> Iterator[Any]:
    """The configuration and what it is composed of: its text model, and its vision model where a side is asked for."""
    try:
        text = config.get_text_config()
    except (AttributeError, ValueError):  # no configuration of transformers, or several text models
        text = None
    vision = None if side is None else getattr(config, "vision_config", None)
    for own in (config, None if text is config else text, vision):
        if hasattr(own, "model_type"):
            yield own
