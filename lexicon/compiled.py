"""The settings of numba here: no lock held, 0 / 0 is NaN, and machine code kept on disk where that is possible.

Importing this costs a third of a second, so what uses it is imported at the first question only.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """A loop in machine code, compiled when it is first called with arguments of new types."""
    try:
        return numba.njit(function, cache=True, nogil=True, error_model="numpy")
    except RuntimeError:  # nowhere to keep what was compiled: neither beside the source nor in the user's cache
        return numba.njit(function, nogil=True, error_model="numpy")
