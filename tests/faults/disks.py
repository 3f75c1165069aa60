"""Small disks to fill: tmpfs mounts, where the tests may make them."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A tmpfs of a size of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        """Resize."""
        for _ in range(100):
            if _mount("-o", f"remount,{options}", str(self.path)) is None:
                return
        raise OSError(f"{self.path} cannot be remounted: {_mount('-o', f'remount,{options}', str(self.path))}")

    def protect(self) -> None:
        """Make it read-only to whoever opens a file from now on; a run has its lock open for writing all the time."""
        for words in (("--bind", str(self.path), str(self.path)), ("-o", "remount,bind,ro", str(self.path))):
            if (refused := _mount(*words)) is not None:
                raise OSError(f"{self.path} cannot be made read-only: {refused}")

    def unprotect(self) -> None:
        subprocess.run(["umount", str(self.path)], check=True)

    def fill(self, leave: int = 0) -> Path:
        """Take all its space but about so many bytes."""
        file = self.path / "ballast"
        with file.open("wb", buffering=0) as stream:
            try:
                while True:
                    stream.write(bytes(4096))
            except OSError:
                pass
            stream.truncate(max(stream.tell() - leave, 0))
        return file


def _mount(*words: str) -> str | None:
    try:
        done = subprocess.run(["mount", *words], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip()


def mounted(path: Path, size: str) -> Iterator[Disk]:
    """For a fixture: a disk that goes when the test ends; skips where this user may mount nothing."""
    path.mkdir()
    if (refused := _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path))) is not None:
        pytest.skip(f"a small disk cannot be mounted here: {refused}")
    try:
        yield Disk(path)
    finally:
        while path.is_mount():  # twice, where it was protected
            subprocess.run(["umount", "--lazy", str(path)], check=True)
