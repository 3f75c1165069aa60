"""Small disks to fill: tmpfs mounts, where the tests may make them."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest


class Disk:
    """A tmpfs of a size of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        """Resize, or make read-only; busy while somebody has a file open for writing, so it is tried for a while."""
        until = time.monotonic() + 20
        while time.monotonic() < until:
            if _mount("-o", f"remount,{options}", str(self.path)) is None:
                return
            time.sleep(0.003)
        raise OSError(f"{self.path} cannot be remounted: {_mount('-o', f'remount,{options}', str(self.path))}")

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
        subprocess.run(["umount", "--lazy", str(path)], check=True)
