"""The settings of numba here: no lock held, 0 / 0 is NaN, and machine code kept on disk where that is possible.

Importing this costs a third of a second, so what uses it is imported at the first question only.
"""

import contextlib
import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba.core.caching import FunctionCache

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """A loop in machine code, compiled when it is first called with arguments of new types."""
    loop = numba.njit(function, nogil=True, error_model="numpy")
    try:
        loop._cache = _Cache(function)  # type: ignore[no-untyped-call]
    except RuntimeError:  # nowhere to keep what was compiled: neither beside the source nor in the user's cache
        _tell("no folder for it can be written")
    return loop


class _Cache(FunctionCache):
    """numba's own, but no more than a cache: what cannot be read is compiled again, and a full disk costs only that."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # whatever a damaged file makes of pickle and LLVM
            with contextlib.suppress(OSError):
                self._cache_file.flush()  # forgets what its index named
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            _tell(error.strerror or str(error))


@functools.cache
def _tell(reason: str) -> None:
    """Once in a process, whatever the number of loops."""
    print(f"numba's machine code cannot be cached ({reason}); it is compiled at each start", file=sys.stderr)
