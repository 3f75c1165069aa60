"""How numba compiles here: without the GIL, 0 / 0 is NaN, machine code cached on disk where that is possible.

Importing this takes a third of a second, so its users are imported when first needed.
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
    except RuntimeError:  # no folder for the cache: neither beside the source nor in the user's cache
        _warn("no folder for it can be written")
    return loop


class _Cache(FunctionCache):
    """numba's cache, with its errors ignored: damaged files are compiled again, a full disk is reported in one line."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # a damaged file can raise anything in pickle and LLVM
            with contextlib.suppress(OSError):
                self._cache_file.flush()  # drops the index
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]
        except OSError as error:
            _warn(error.strerror or str(error))


@functools.cache
def _warn(reason: str) -> None:
    """One line on standard error, once in a process and not for each loop."""
    print(f"numba's machine code cannot be cached ({reason}); it is compiled at each start", file=sys.stderr)
