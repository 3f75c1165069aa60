"""A folder that one process at a time writes to.

The lock is the kernel's (`flock` on a file in the folder): it is gone when its process is, also by kill −9. Between
hosts it holds as far as their file system passes it on: NFS does, unless it is mounted with `nolock` or `local_lock`,
and Lustre where it is mounted with `flock`.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

LOCK = ".run.lock"
_HELD = (errno.EWOULDBLOCK, errno.EACCES)
_PATIENCE = 1.0  # seconds: another command may only be looking whether the folder is locked
_descriptors: set[int] = set()


class LockedError(ValueError):
    """Another process holds the lock; the message says which."""


class FolderLock:
    """The lock of a folder, taken at once or not at all.

    Args:
        folder: must exist.
        job: name of the job whose processes share the folder; "" for one process.

    Attributes:
        refused: why the file system cannot lock, where it cannot: the folder is not protected then. Else None.

    Raises:
        LockedError: another process holds it.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, job: str = "") -> None:
        self._path, self._pid = folder / LOCK, os.getpid()
        self.refused: str | None = None
        until = time.monotonic() + _PATIENCE
        while not self._take(job):
            if time.monotonic() > until:
                raise LockedError(holder(folder) or "another process")
            time.sleep(0.05)

    def _take(self, job: str) -> bool:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                os.close(self._descriptor)
                return False
            self.refused = error.strerror
        with contextlib.suppress(FileNotFoundError):
            # its last holder may have removed the file between the two calls
            if os.fstat(self._descriptor).st_ino == self._path.stat().st_ino:
                since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
                text = f"process {self._pid} on {socket.gethostname()}, since {since}\n{job}\n"
                with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
                    os.ftruncate(self._descriptor, 0)
                    os.pwrite(self._descriptor, text.encode(), 0)
                _descriptors.add(self._descriptor)
                return True
        os.close(self._descriptor)
        return False

    def release(self) -> None:
        """Remove the file and with it the lock; nothing in a process that was forked from the holder."""
        if os.getpid() != self._pid or self._descriptor not in _descriptors:
            return
        with contextlib.suppress(OSError):  # the folder may be gone
            if os.fstat(self._descriptor).st_ino == self._path.stat().st_ino:
                self._path.unlink()
        _descriptors.discard(self._descriptor)
        os.close(self._descriptor)


def holder(folder: Path, job: str = "") -> str | None:
    """Who holds the lock of a folder, in words; None where nobody does, or another process of the same job.

    Args:
        job: as the holder gave it; "" is never the same.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # there is none, or it is another user's: then writing fails too
        return None
    try:
        # shared: two commands that look at the same time do not see each other
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _HELD:
            return None
        who, _, its_job = os.pread(descriptor, 1000, 0).decode(errors="replace").strip().partition("\n")
        return None if job and its_job == job else who or "another process"
    finally:
        os.close(descriptor)
    return None


def _close_in_child() -> None:
    # a worker that outlives its parent, killed by −9, would hold the lock
    for descriptor in _descriptors:
        os.close(descriptor)
    _descriptors.clear()


os.register_at_fork(after_in_child=_close_in_child)
