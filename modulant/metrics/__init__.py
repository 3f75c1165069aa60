"""State around the maths: torchmetrics that accumulate, sync and compute, and measures of a whole population.

Every distributed state reduces by sum.

Names are imported when first used; `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
