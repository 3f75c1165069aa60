"""Files that are whole or not there, the user's cache, and one line where a disk cannot store a file."""

from modulant.storage.cache import cache_arrays, cache_folder, read_arrays
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
from modulant.storage.results import content_key, kept

__all__ = [
    "StorageError",
    "append_line",
    "cache_arrays",
    "cache_folder",
    "content_key",
    "disk_error",
    "kept",
    "read_arrays",
    "replace_durably",
    "sha256_of",
    "storing",
    "storing_a_run",
    "write_beside",
    "write_whole",
]
