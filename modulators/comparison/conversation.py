"""Prompts typed at a terminal, one after another, with line editing and history."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress

SIGN = "> "


class Conversation:
    """Iterator over typed prompts. Ctrl-D, Ctrl-C, ``exit`` or ``quit`` ends it; empty lines are skipped.

    Args:
        waiting: context entered around each wait for a line, so that signals can end the wait.
        hint: what to type.
    """

    def __init__(
        self,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        hint: str = "type a definition, such as: a small dog",
    ) -> None:
        self._waiting, self._hint = waiting, hint

    def __iter__(self) -> Iterator[str]:
        with suppress(ImportError):  # not available on every platform
            import readline  # noqa: F401  # the import alone gives `input` line editing
        if sys.stdout.isatty():
            print(f"{self._hint} (Ctrl-D ends)", flush=True)
        while True:
            try:
                with self._waiting():
                    line = input(SIGN if sys.stdout.isatty() else "").strip()
            except (EOFError, KeyboardInterrupt):
                if sys.stdout.isatty():
                    print(flush=True)
                return
            if line in ("exit", "quit"):
                return
            if line:
                yield line
