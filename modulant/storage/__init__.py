"""Files that are whole or not there, and one line where a disk will not take them."""

from modulant.storage.files import (
    StorageError,
    append_line,
    disk_error,
    replace_durably,
    sha256_of,
    storing,
    storing_a_run,
    write_beside,
    write_whole,
)

__all__ = [
    "StorageError",
    "append_line",
    "disk_error",
    "replace_durably",
    "sha256_of",
    "storing",
    "storing_a_run",
    "write_beside",
    "write_whole",
]
