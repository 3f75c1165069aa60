from .families import stream_of
from .opening import Backbone, open_model

__all__ = ["Backbone", "open_model", "stream_of"]
