"""Metrics: `functional` holds the maths; the classes here hold the state, which reduces by sum over processes.

Names are imported when first used; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
