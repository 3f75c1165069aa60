"""Modulators of a frozen T5's residual stream, the hooks that attach them to it, and the modules that train them.

What needs transformers or lightning is loaded when it is first asked for: a modulator alone needs neither.
"""

import importlib
from typing import TYPE_CHECKING, Any

from modulators.attach import ModulatorHandle, attach
from modulators.base import Modulator, ResidualStream
from modulators.field import FieldModulator
from modulators.lerp import LerpModulator

if TYPE_CHECKING:
    from modulators.adapted import AdaptedT5
    from modulators.artifact import load_modulated, save_modulator
    from modulators.geometry import Geometry
    from modulators.pretraining import PretrainT5
    from modulators.seq2seq import ModulatedT5

_LATER = {
    "AdaptedT5": "adapted",
    "Geometry": "geometry",
    "ModulatedT5": "seq2seq",
    "PretrainT5": "pretraining",
    "load_modulated": "artifact",
    "save_modulator": "artifact",
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
    "ResidualStream",
    "attach",
    "load_modulated",
    "save_modulator",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"modulators.{_LATER[name]}"), name)
    raise AttributeError(f"module 'modulators' has no attribute {name!r}")
