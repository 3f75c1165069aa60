"""Where a command may write: a folder that can be created, and files that are nobody else's."""

import os
from collections.abc import Iterable
from pathlib import Path

_NOBODYS = (".DS_Store", ".gitignore", ".gitkeep", "lost+found")  # in folders that are empty to their users


def check_place(folder: Path) -> None:
    """Refuse a folder that cannot be created, without creating it.

    Raises:
        ValueError: a file is in its way, or its parent cannot be written.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise ValueError(f"--output: {folder} cannot be a folder, as {nearest} is a file; name one that can")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ValueError(f"--output: {folder} cannot be written, as {nearest} forbids it; name one that can")


def held(folder: Path) -> list[str]:
    """Names of what a folder holds, but for what systems leave in empty ones; of none where there is no folder."""
    return sorted(e.name for e in folder.iterdir() if e.name not in _NOBODYS) if folder.is_dir() else []


def some(names: Iterable[str]) -> str:
    """A few names for a message.

    >>> some("abcd")
    'a, b, c, …'
    """
    first, *rest = list(names)
    return ", ".join([first, *rest[:2]]) + (", …" if len(rest) > 2 else "")
