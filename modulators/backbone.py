"""The backbone functions that are part of the public API of `modulators`."""

from modulant.backbones.stream import ResidualStream
from modulant.backbones.t5 import load_t5, stream_of

__all__ = ["ResidualStream", "load_t5", "stream_of"]
