"""The backbone functions that are part of the public API of `modulators`."""

from modulant.backbones.families import stream_of
from modulant.backbones.stream import ResidualStream
from modulant.backbones.t5 import load_t5

__all__ = ["ResidualStream", "load_t5", "stream_of"]
