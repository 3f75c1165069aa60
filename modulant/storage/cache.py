"""The user's cache of arrays that take seconds or minutes to make."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modulant.storage.files import disk_error, write_whole


def cache_folder() -> Path:
    """The user's cache folder for this project: ``$MODULANT_CACHE``, or ``modulant`` under the XDG cache folder."""
    if own := os.environ.get("MODULANT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "modulant"


def cache_arrays(file: Path, arrays: Mapping[str, Any], what: str) -> None:
    """Writes arrays to a file of the cache, whole or not at all.

    If that fails, one line on standard error says so, and the arrays are computed again at each start.

    Args:
        what: what the arrays hold, for that line.
    """
    import numpy as np  # a tenth of a second, which other users of this package need not spend

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, lambda stream: np.savez(stream, **arrays))
    except OSError as error:
        reason = getattr(disk_error(error), "strerror", None) or str(error)
        print(f"{file}: {what} cannot be cached ({reason}); going on without", file=sys.stderr)


def read_arrays(file: Path, names: Sequence[str] | None = None) -> dict[str, Any] | None:
    """The arrays of a file of the cache; None if it is missing or damaged (each array has a checksum).

    Args:
        names: which, None if one of them is missing; null: all.
    """
    import numpy as np

    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in (arrays.files if names is None else names)}
    except Exception:  # a damaged file can raise anything in NumPy and zipfile; its arrays are made again
        return None
