"""The backbone, by the names that users of modulators know."""

from modulant.backbones.stream import ResidualStream
from modulant.backbones.t5 import load_t5, stream_of

__all__ = ["ResidualStream", "load_t5", "stream_of"]
