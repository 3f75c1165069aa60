"""Results kept by what they follow from: another content is another key, and a damaged file is no result."""

import os
from pathlib import Path

import numpy as np
import pytest

from modulant.storage import cache_folder, content_key, kept, results
from modulant.storage.results import sources_digest


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "cache"))


def test_keys_tell_values_types_and_shapes_apart() -> None:
    zeros = np.zeros((2, 3), np.float32)
    contents = (
        (), (None,), (0,), (False,), ("0",), (b"0",), (0.0,), ([0],), ([0], [0]), ([[0], [0]],), ({"a": 0},),
        (zeros,), (zeros.T,), (zeros.astype(np.float64),), (zeros.view(np.int32),), (zeros + np.float32(1e-30),),
    )  # fmt: skip
    keys = [content_key(*content) for content in contents]
    assert len(set(keys)) == len(keys)
    assert keys == [content_key(*content) for content in contents]


def test_another_line_of_code_is_another_digest(tmp_path: Path) -> None:
    code = tmp_path / "package"
    (code / "inner").mkdir(parents=True)
    (code / "inner" / "a.py").write_text("x = 1\n")
    seen = [sources_digest([code])]
    (code / "inner" / "a.py").write_text("x = 2\n")
    seen.append(sources_digest([code]))
    (code / "inner" / "a.py").rename(code / "a.py")
    seen.append(sources_digest([code]))
    (code / "notes.md").write_text("no code")
    assert sources_digest([code]) == seen[-1]
    assert len(set(seen)) == 3


def test_what_is_kept_is_computed_once_and_again_where_the_file_is_damaged() -> None:
    calls: list[int] = []

    def compute() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"x": np.arange(1000.0) + len(calls)}

    key = content_key("x")
    assert all(kept("some", key, compute)["x"][0] == 1 for _ in range(2))
    assert len(calls) == 1
    (file,) = cache_folder().iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (b"", whole[:middle], whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]):
        file.write_bytes(damaged)
        found = kept("some", key, compute)["x"]
        assert found[0] == len(calls) > 1
        assert np.array_equal(kept("some", key, compute)["x"], found)
    other = file.with_name(file.name.replace(key, content_key("y")))
    file.rename(other)  # a file under another's name
    before = len(calls)
    kept("some", content_key("y"), compute)
    assert len(calls) == before + 1
    assert kept("some", None, compute)["x"][0] == len(calls) == before + 2


def test_the_oldest_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_MOST", 2)
    cache_folder().mkdir(parents=True)

    for age, name in enumerate(("some-b", "some-a", "else-c")):
        file = cache_folder() / f"{name}.npz"
        file.write_bytes(b"")
        os.utime(file, (age, age))
    kept("some", content_key("x"), lambda: {"x": np.zeros(1)})
    names = {"else-c.npz", "some-a.npz", f"some-{content_key('x')}.npz"}  # the key is of the code too
    assert {file.name for file in cache_folder().iterdir()} == names
