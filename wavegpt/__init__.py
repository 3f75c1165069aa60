"""Wave language models beside their controls: wave-packet embeddings, interference attention, optimizer and losses.

Names are imported when first used; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
