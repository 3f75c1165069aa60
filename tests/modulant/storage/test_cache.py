"""The cache is where the user's environment says, and one that cannot be written costs a line."""

from pathlib import Path

import numpy as np
import pytest

from modulant.storage import cache_arrays, cache_folder


def test_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODULANT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/modulant")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/modulant"


def test_arrays_are_whole_or_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "new" / "a.npz"
    cache_arrays(file, {"x": np.arange(3), "name": np.asarray("y")}, "numbers")
    with np.load(file) as arrays:
        assert arrays["x"].tolist() == [0, 1, 2]
        assert str(arrays["name"]) == "y"
    assert capsys.readouterr() == ("", "")
    cache_arrays(file / "inside" / "b.npz", {"x": np.arange(3)}, "numbers")
    assert (
        capsys.readouterr().err
        == f"{file}/inside/b.npz: numbers cannot be cached (Not a directory); going on without\n"
    )
    assert [path.name for path in file.parent.iterdir()] == ["a.npz"]
