"""Frozen backbones: any known family of transformers found, opened and frozen; T5s split at a block, and sharded.

Names are imported when first used; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
