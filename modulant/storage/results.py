"""Results that follow from content alone, kept in the user's cache under a digest of all that they follow from.

A file's name is that digest, so no file is ever out of date: a weight, a text, a version or a line of code that has
changed gives another name. The oldest files of a kind make room for new ones.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modulant.storage.cache import cache_arrays, cache_folder, read_arrays

_MOST = 64  # files of a kind
_LARGEST = 64 << 20  # bytes of a file
_PACKAGES = ("modulant", "modulators", "datamodules", "callbacks")
_KEY = "content.key"  # the array of a file that holds its own key

Arrays = Mapping[str, Any]


def content_key(*parts: object) -> str:
    """Digest of nested values and arrays, of their types and shapes, and of this project's code.

    Args:
        parts: None, numbers, text, bytes, arrays of any library that NumPy reads, and sequences or mappings of these.

    >>> content_key([1, 2]) == content_key([1], [2]), content_key(1) == content_key("1")
    (False, False)
    """
    digest = hashlib.blake2b(digest_size=20)
    _add(digest, [code_digest(), parts])
    return digest.hexdigest()


def _add(digest: Any, part: object) -> None:
    import numpy as np

    if part is None or isinstance(part, bool | int | float | str | bytes):
        text = part if isinstance(part, bytes) else str(part).encode()
        digest.update(f"{type(part).__name__} {len(text)} ".encode())
        digest.update(text)
    elif isinstance(part, Mapping):
        _add(digest, list(part.items()))
    elif isinstance(part, Sequence):
        digest.update(f"sequence {len(part)} ".encode())
        for one in part:
            _add(digest, one)
    else:
        array = np.ascontiguousarray(part)
        assert array.dtype.hasobject is False, f"{type(part).__name__} is no content"
        digest.update(f"array {array.dtype.str} {array.shape} ".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)


@cache
def code_digest() -> bytes:
    """Digest of the source of every package here that computes something."""
    folders = [find_spec(name) for name in _PACKAGES]
    return sources_digest(Path(spec.origin).parent for spec in folders if spec is not None and spec.origin)


def sources_digest(folders: Iterable[Path]) -> bytes:
    """Digest of all Python files below some folders: their places in them, and their contents."""
    digest = hashlib.blake2b(digest_size=20)
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            _add(digest, [folder.name, file.relative_to(folder).as_posix(), file.read_bytes()])
    return digest.digest()


def kept(kind: str, key: str | None, compute: Callable[[], Arrays]) -> Arrays:
    """Arrays from the cache; where it has none of this key, or a damaged file, they are computed, and cached.

    Args:
        kind: first word of the file's name.
        key: `content_key` of all that the arrays follow from; None: that is not known, so they are computed.
        compute: makes the arrays, by name.
    """
    if key is None:
        return compute()
    file = cache_folder() / f"{kind}-{key}.npz"
    if (found := _read(file, key)) is not None:
        return found
    arrays = compute()
    if sum(array.nbytes for array in arrays.values()) <= _LARGEST:
        cache_arrays(file, {**arrays, _KEY: key}, f"{kind} that the next run would read")
        _make_room(kind)
    return arrays


def _read(file: Path, key: str) -> Arrays | None:
    found = read_arrays(file)
    if found is None or str(found.pop(_KEY, None)) != key:
        return None
    with suppress(OSError):
        file.touch()  # the last to make room
    return found


def _make_room(kind: str) -> None:
    def age(file: Path) -> float:
        with suppress(OSError):
            return -file.stat().st_mtime
        return 0.0

    for file in sorted(cache_folder().glob(f"{kind}-*.npz"), key=age)[_MOST:]:
        with suppress(OSError):
            file.unlink(missing_ok=True)
