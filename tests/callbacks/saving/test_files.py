"""Checkpoint files: whole or not there, verified before loading, the newest found; with real kills."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.saving.files import (
    AtomicCheckpointIO,
    CheckpointError,
    digest_path,
    load_verified,
    newest_checkpoint,
    read_newest,
    save_atomically,
)
from modulant.storage import sha256_of


def content(step: int) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {"w": torch.full((50,), float(step))}}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def save_and_die(path: Path, step: int, dies_at: int) -> None:
    """Saves in a process that is gone, without any clean-up, at its `dies_at`-th rename."""
    renames = 0
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        nonlocal renames
        if renames == dies_at:
            os._exit(9)
        renames += 1
        real(source, target)

    os.replace = replace  # type: ignore[assignment]
    save_atomically(content(step), path)
    os._exit(0)


def test_saved_checkpoint_loads_equal_and_leaves_no_temporary(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "step_00000007.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(7), path)
    loaded = AtomicCheckpointIO().load_checkpoint(path)
    assert loaded["global_step"] == 7
    assert torch.equal(loaded["state_dict"]["w"], torch.full((50,), 7.0))
    assert names(path.parent) == ["step_00000007.ckpt", "step_00000007.ckpt.sha256"]
    # the digest file is what `sha256sum -c` reads
    assert digest_path(path).read_text() == f"{sha256_of(path)}  {path.name}\n"


@pytest.mark.parametrize("dies_at", [0, 1, 2])
def test_kill_at_any_rename_leaves_a_whole_checkpoint(tmp_path: Path, dies_at: int) -> None:
    path = tmp_path / "step_00000001.ckpt"
    save_atomically(content(1), path)
    process = multiprocessing.get_context("fork").Process(target=save_and_die, args=(path, 2, dies_at))
    process.start()
    process.join()
    assert process.exitcode == 9
    # renames: the digests of both, the checkpoint, its own digest
    assert load_verified(path)["global_step"] == (1 if dies_at < 2 else 2)
    save_atomically(content(3), path)
    assert load_verified(path)["global_step"] == 3
    assert len(digest_path(path).read_text().splitlines()) == 1


def test_failed_write_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "step_00000001.ckpt"
    save_atomically(content(1), path)
    with pytest.raises((AttributeError, TypeError, RuntimeError)):
        save_atomically({"global_step": lambda: 0, "generator": (x for x in ())}, path)
    assert load_verified(path)["global_step"] == 1
    assert names(tmp_path) == ["step_00000001.ckpt", "step_00000001.ckpt.sha256"]


def test_flipped_bit_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "step_00000001.ckpt"
    save_atomically(content(1), path)
    data = bytearray(path.read_bytes())
    # inside the tensor's data, where torch.load itself notices nothing
    data[data.index(torch.full((50,), 1.0).numpy().tobytes()) + 2] ^= 1
    path.write_bytes(bytes(data))
    torch.load(path, weights_only=True)
    with pytest.raises(CheckpointError, match="damaged, its SHA-256") as caught:
        AtomicCheckpointIO().load_checkpoint(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "no such checkpoint"),
        (lambda path: digest_path(path).unlink(), "cannot be verified"),
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: digest_path(path).write_text(""), "damaged"),
    ],
)
def test_what_cannot_be_verified_is_refused(tmp_path: Path, spoil: Callable[[Path], Any], says: str) -> None:
    path = tmp_path / "step_00000001.ckpt"
    save_atomically(content(1), path)
    spoil(path)
    with pytest.raises(CheckpointError, match=says):
        load_verified(path)


class Payload:
    """Pickles to a call of os.system."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_code_in_a_checkpoint_is_never_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "step_00000001.ckpt"
    save_atomically({"global_step": 1, "evil": Payload()}, path)
    with pytest.raises(CheckpointError, match="weights_only=True"):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not (tmp_path / "pwned").exists()


def test_plugin_refuses_remote_paths_and_removes_both_files(tmp_path: Path) -> None:
    plugin = AtomicCheckpointIO()
    with pytest.raises(CheckpointError, match="local folders only"):
        plugin.load_checkpoint("https://example.org/x.ckpt")
    path = tmp_path / "step_00000001.ckpt"
    plugin.save_checkpoint(content(1), path)
    plugin.remove_checkpoint(path)
    plugin.remove_checkpoint(path)
    assert names(tmp_path) == []


def test_newest_skips_what_does_not_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "checkpoints"
    for step in (5, 10, 15, 20):
        save_atomically(content(step), folder / f"step_{step:08d}.ckpt")
    whole = (folder / "step_00000020.ckpt").read_bytes()
    (folder / "step_00000020.ckpt").write_bytes(whole[: len(whole) // 2])
    digest_path(folder / "step_00000015.ckpt").unlink()
    os.utime(folder / "step_00000005.ckpt")  # the most recently touched is not the newest
    assert newest_checkpoint(tmp_path).name == "step_00000010.ckpt"
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert "step_00000020.ckpt: damaged" in lines[0]
    assert "step_00000015.ckpt: no step_00000015.ckpt.sha256" in lines[1]


def test_newest_reads_the_step_inside_when_the_name_has_none(tmp_path: Path) -> None:
    save_atomically(content(30), tmp_path / "checkpoints" / "kept by hand.ckpt")
    save_atomically(content(20), tmp_path / "checkpoints" / "step_00000020.ckpt")
    assert newest_checkpoint(str(tmp_path)).name == "kept by hand.ckpt"


def test_newest_while_a_run_replaces_its_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two newest are kept, and replaced as fast as they can be."""
    folder, plugin, over = tmp_path / "checkpoints", AtomicCheckpointIO(), threading.Event()

    def train() -> None:
        step = 1
        while not over.is_set():
            step += 1
            save_atomically(content(step), folder / f"step_{step:08d}.ckpt")
            plugin.remove_checkpoint(folder / f"step_{step - 2:08d}.ckpt")

    save_atomically(content(1), folder / "step_00000001.ckpt")
    (folder / "step_00099999.ckpt").write_bytes(b"cut")
    training = threading.Thread(target=train)
    training.start()
    try:
        steps, until = list[int](), time.monotonic() + 60
        while (len(steps) < 100 or steps[-1] == steps[0]) and time.monotonic() < until:  # a busy disk may take seconds
            steps.append(read_newest(tmp_path)[1]["global_step"])
    finally:
        over.set()
        training.join()
    assert steps == sorted(steps)
    assert steps[-1] > steps[0]
    assert {line.partition(":")[0] for line in capsys.readouterr().err.splitlines()} == {
        f"skipped {folder / 'step_00099999.ckpt'}"
    }


def test_what_was_read_is_loaded_once_though_the_file_is_gone(tmp_path: Path) -> None:
    save_atomically(content(1), tmp_path / "checkpoints" / "step_00000001.ckpt")
    path, read = read_newest(tmp_path)
    plugin = AtomicCheckpointIO((path, read))
    plugin.remove_checkpoint(path)
    assert plugin.load_checkpoint(str(path)) is read
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        plugin.load_checkpoint(path)


def test_newest_of_none_is_a_one_line_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*nothing to resume from"):
        newest_checkpoint(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_00000001.ckpt").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="none of the 1 checkpoints"):
        newest_checkpoint(tmp_path)
