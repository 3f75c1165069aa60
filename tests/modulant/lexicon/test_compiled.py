"""Machine code is kept where that can be done; without it, or with a damaged one, answers are the same."""

import errno
from pathlib import Path

import numba.core.caching
import numpy as np
import pytest

import modulant.lexicon.compiled
from modulant.lexicon.compiled import compiled


def total(values):  # type: ignore[no-untyped-def]
    found = 0.0
    for value in values:
        found += value
    return found


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    modulant.lexicon.compiled._warn.cache_clear()
    return tmp_path


def test_kept_and_read_again(cache: Path) -> None:
    assert compiled(total)(np.ones(3)) == 3
    again = compiled(total)
    assert again(np.ones(3)) == 3
    assert sum(again.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_a_damaged_file_is_made_again(cache: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    compiled(total)(np.ones(3))
    (file,) = cache.rglob(f"*.{suffix}")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert compiled(total)(np.ones(3)) == 3
    again = compiled(total)
    assert again(np.ones(3)) == 3
    assert sum(again.stats.cache_hits.values()) == 1
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_told_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)
    for _ in range(2):
        assert compiled(total)(np.ones(3)) == 3
    assert capsys.readouterr().err == (
        "numba's machine code cannot be cached (No space left on device); it is compiled at each start\n"
    )


def test_no_folder_to_keep_it_in(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    modulant.lexicon.compiled._warn.cache_clear()
    assert compiled(total)(np.ones(3)) == 3
    assert "cannot be cached (no folder for it can be written)" in capsys.readouterr().err
