"""Modulators of a frozen transformer's residual stream, the hooks that attach them, and the modules that train them.

Names are imported when first used; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
