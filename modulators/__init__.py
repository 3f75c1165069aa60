"""Modulators of a frozen T5's residual stream, the hooks that attach them to it, and the modules that train them.

Names are imported when they are first used: what arguments may be is known without torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modulators.adapted import AdaptedT5
    from modulators.artifact import PretrainedModulator, load_modulated, save_modulator, write_card
    from modulators.backbone import load_t5, stream_of
    from modulators.base import Modulator, ResidualStream
    from modulators.field import FieldModulator
    from modulators.geometry import Geometry
    from modulators.hooks import ModulatorHandle, attach
    from modulators.known import register
    from modulators.lerp import LerpModulator
    from modulators.merging import merge
    from modulators.pretraining import PretrainT5
    from modulators.seq2seq import ModulatedT5
    from modulators.summary import Summary

_HOMES = {
    "AdaptedT5": "adapted",
    "FieldModulator": "field",
    "Geometry": "geometry",
    "LerpModulator": "lerp",
    "ModulatedT5": "seq2seq",
    "Modulator": "base",
    "ModulatorHandle": "hooks",
    "PretrainT5": "pretraining",
    "PretrainedModulator": "artifact",
    "ResidualStream": "base",
    "Summary": "summary",
    "attach": "hooks",
    "load_modulated": "artifact",
    "load_t5": "backbone",
    "merge": "merging",
    "register": "known",
    "save_modulator": "artifact",
    "stream_of": "backbone",
    "write_card": "artifact",
}

__all__ = [
    "AdaptedT5",
    "FieldModulator",
    "Geometry",
    "LerpModulator",
    "ModulatedT5",
    "Modulator",
    "ModulatorHandle",
    "PretrainT5",
    "PretrainedModulator",
    "ResidualStream",
    "Summary",
    "attach",
    "load_modulated",
    "load_t5",
    "merge",
    "register",
    "save_modulator",
    "stream_of",
    "write_card",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'modulators' has no attribute '{name}'")
    return getattr(import_module(f"modulators.{_HOMES[name]}"), name)
