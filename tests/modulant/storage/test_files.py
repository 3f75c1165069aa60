"""A file is whole or as it was, nothing lies beside it, and the line says which disk and what to do."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modulant.storage import (
    StorageError,
    append_line,
    disk_error,
    replace_durably,
    storing_a_run,
    write_beside,
    write_whole,
)


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


def test_text_bytes_and_functions_replace_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    for content, expected in (("ä", "ä".encode()), (b"\x00", b"\x00"), (lambda f: f.write(b"three"), b"three")):
        write_whole(file, content)
        assert file.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.ENOSPC, "no space is left on its disk; free some, or name a folder on another disk"),
        (errno.EROFS, "(Read-only file system); make its folder writable, or name another"),
        (errno.EIO, "(Input/output error)"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_refuses_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, says: str
) -> None:
    file = tmp_path / "a.txt"
    write_whole(file, "old")
    monkeypatch.setattr(os, step, refusing(number))
    with pytest.raises(StorageError) as caught:
        write_whole(file, "new")
    assert str(caught.value).startswith(f"{file} cannot be written")
    assert says in str(caught.value)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_error_that_is_no_disks_passes_and_leaves_nothing(tmp_path: Path) -> None:
    def write(_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write_whole(tmp_path / "a.txt", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone_stays_away(tmp_path: Path) -> None:
    file = tmp_path / "run" / "checkpoints" / "a.txt"
    for write in (lambda: write_whole(file, "x"), lambda: append_line(file, "x\n")):
        with pytest.raises(StorageError, match=rf"^{tmp_path / 'run'} is gone: it was removed or unmounted"):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_file_that_is_not_wanted_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = write_beside(tmp_path / "a.txt", lambda file: file.write(b"x"))
    assert temporary.name.startswith(".a.txt.")
    monkeypatch.setattr(os, "replace", refusing(errno.ENOSPC))
    with pytest.raises(StorageError):
        replace_durably(temporary, tmp_path / "a.txt")
    assert list(tmp_path.iterdir()) == []


def test_half_a_line_is_taken_back(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    file = tmp_path / "rows.csv"
    file.write_text("a" * 990 + "\n")
    append_line(file, "whole\n")
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the file may grow by three bytes more
    try:
        with pytest.raises(StorageError, match="no space is left"):
            append_line(file, "another line\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_text().endswith("\nwhole\n")


def test_what_another_library_writes_into_a_run(tmp_path: Path) -> None:
    full, missing = OSError(errno.ENOSPC, "full"), FileNotFoundError(errno.ENOENT, "none", str(tmp_path / "run" / "x"))
    elsewhere = FileNotFoundError(errno.ENOENT, "none", "/somewhere/else")
    for error, raised in ((full, StorageError), (missing, StorageError), (elsewhere, ValueError)):
        with pytest.raises(raised), storing_a_run(tmp_path / "run"):
            raise ValueError("you tried to log a figure that is not supported") from error
    with pytest.raises(KeyError), storing_a_run(tmp_path):
        raise KeyError


def test_the_first_of_a_chain_is_what_counts() -> None:
    first, second = OSError(28, "full"), OSError(2, "gone")
    second.__context__ = first
    assert disk_error(second) is first
    first.__context__ = second  # a ring, which Python itself never makes
    assert disk_error(second) is first
    assert disk_error(ValueError("x")) is None
