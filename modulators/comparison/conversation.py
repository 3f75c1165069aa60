"""A person who asks at a terminal: one prompt after another, with line editing and the arrow keys' history."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress

SIGN = "> "


class Conversation:
    """The prompts that somebody types. Ctrl-D, Ctrl-C, ``exit`` or ``quit`` ends them; an empty line is asked again.

    Args:
        waiting: entered around each wait for a line, for who watches signals.
    """

    def __init__(self, waiting: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._waiting = waiting

    def __iter__(self) -> Iterator[str]:
        with suppress(ImportError):  # not on every platform; without it lines are typed plainly
            import readline  # noqa: F401  # importing it is what gives `input` its editing
        if sys.stdout.isatty():
            print("type a definition, such as: a small dog (Ctrl-D ends)", flush=True)
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
