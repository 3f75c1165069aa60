"""Atomic writes: a sibling temporary file is flushed to disk and renamed into its place.

A kill leaves the old file or the new one. A disk that is full, read-only or gone leaves the old one, no temporary file,
and a `StorageError` whose one line names the file and what to do. No folder is created here: a run folder that vanishes
during a run must not come back half empty.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StorageError(OSError):
    """A file could not be written; the message is one line."""


def disk_error(error: BaseException) -> OSError | None:
    """The system's error at the root of another, as libraries wrap it or fail again while they clean up; or None.

    >>> try:
    ...     try:
    ...         raise OSError(28, "No space left on device")
    ...     except OSError:
    ...         raise RuntimeError("unexpected pos 64")
    ... except RuntimeError as error:
    ...     disk_error(error)
    OSError(28, 'No space left on device')
    """
    found: OSError | None = None
    seen: set[int] = set()
    inner: BaseException | None = error
    while inner is not None and id(inner) not in seen:
        seen.add(id(inner))
        if isinstance(inner, StorageError) or (isinstance(inner, OSError) and inner.errno is not None):
            found = inner
        inner = inner.__cause__ or inner.__context__
    return found


@contextlib.contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns disk errors inside into a `StorageError` with one line about `path`.

    Raises:
        StorageError: the disk failed; other errors pass unchanged.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if (cause := disk_error(error)) is None:
            raise
        raise StorageError(_message(path, cause)) from error


@contextlib.contextmanager
def storing_a_run(folder: Path) -> Iterator[None]:
    """Turns disk errors of files that other libraries write into a run folder into a `StorageError`.

    Errors that may concern another file pass unchanged.

    Raises:
        StorageError: a disk was full, or the file that could not be written lies in `folder`.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if (cause := disk_error(error)) is None:
            raise
        place = Path(os.fsdecode(cause.filename)) if isinstance(cause.filename, str | bytes) else None
        inside = place is not None and folder.absolute() in place.absolute().parents
        if not (isinstance(cause, StorageError) or cause.errno in _FULL or inside):
            raise
        raise StorageError(_message(place or folder / "a file", cause)) from error


def _message(path: Path, error: OSError) -> str:
    if isinstance(error, StorageError):
        return str(error)
    gone = [folder for folder in path.parents if not folder.exists()]
    if gone:
        return f"{gone[-1]} is gone: it was removed or unmounted while a run wrote to it; name a folder that stays"
    if error.errno in _FULL:
        return f"{path} cannot be written: no space is left on its disk; free some, or name a folder on another disk"
    reason = error.strerror or str(error)
    return f"{path} cannot be written ({reason}); make its folder writable, or name another"


def free_name(path: Path) -> Path:
    """The path itself, or with a number behind its stem where a file has that name already: a_2.yaml, a_3.yaml, …"""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return free


def write_beside(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    """Writes a temporary file beside `path`, flushed to disk, for `replace_durably`; a failure leaves none.

    Raises:
        StorageError: the disk cannot store it.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with storing(path), temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    return temporary


def replace_durably(temporary: Path, path: Path) -> None:
    """Renames a temporary file into its place, and flushes the folder, so that the rename survives a power cut.

    Raises:
        StorageError: the disk cannot store it; the temporary file is removed too.
    """
    try:
        with storing(path):
            os.replace(temporary, path)
            if os.name == "posix":  # elsewhere a folder cannot be opened
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], Any]) -> None:
    """Writes a file as a whole, in place of the old one.

    Args:
        path: in an existing folder.
        content: text (UTF-8), bytes, or a function that writes to an open file.

    Raises:
        StorageError: the disk cannot store it; the old file is unchanged.
    """
    if callable(content):
        write = content
    else:
        data = content.encode() if isinstance(content, str) else content

        def write(file: BinaryIO) -> Any:
            return file.write(data)

    replace_durably(write_beside(path, write), path)


def append_line(path: Path, line: str) -> None:
    """Appends to a text file, all or nothing: half a line would spoil the next.

    Raises:
        StorageError: the disk cannot store it; the file is unchanged.
    """
    data = line.encode()
    with storing(path):
        size = path.stat().st_size
        try:
            with path.open("ab", buffering=0) as file:
                while data:
                    data = data[file.write(data) :]
        except OSError:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
            raise


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's contents, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
