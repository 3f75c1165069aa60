"""Kills in the middle of saving, and flipped bits in what was saved: the newest whole checkpoint is loaded, or none."""

import multiprocessing
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.saving.files import (
    AtomicCheckpointIO,
    CheckpointError,
    digest_path,
    load_verified,
    newest_checkpoint,
    save_atomically,
    step_of,
)
from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_config
from modulators import FieldModulator, ResidualStream, load_modulated, save_modulator
from modulators.artifact.files import CARD, CONFIG, WEIGHTS
from tests.faults.conftest import Tally, many

KILL, BIT, ARTEFACT = "SIGKILL during a save", "bit flipped in a checkpoint", "bit flipped in an artefact"
LIVE = 500_000  # floats of a checkpoint: 2 MB, so that writing it takes a part of what lies between two kills


def content(step: int, floats: int) -> dict[str, Any]:
    return {"global_step": step, "state_dict": {"w": torch.full((floats,), float(step))}}


def save_for_ever(folder: Path, first: int, confirmed: Connection) -> None:
    """As a run does: each step a new file and the surplus removed; each third step over the file of the one before."""
    torch.set_num_threads(1)
    plugin = AtomicCheckpointIO()
    step = first
    while True:
        place = folder / f"step_{step - (step % 3 == 0):08d}.ckpt"
        plugin.save_checkpoint(content(step, LIVE), place)
        confirmed.send_bytes(step.to_bytes(8, "little"))
        kept = sorted(folder.glob("step_*.ckpt"), key=step_of)
        for surplus in kept[:-2]:
            plugin.remove_checkpoint(surplus)
        step += 1


@pytest.fixture
def another_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """TMPDIR where a rename into the run folder is impossible, if there is such a place."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK) and memory.stat().st_dev != tmp_path.stat().st_dev):
        yield "on the same device: there is no other here"
        return
    folder = tempfile.mkdtemp(dir=memory)
    monkeypatch.setenv("TMPDIR", folder)
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield "on another device"
    shutil.rmtree(folder)


def test_kills_during_saves(tmp_path: Path, another_device: str, tally: Tally) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    context = multiprocessing.get_context("fork")  # the child has torch at once
    rng = np.random.default_rng(11)
    last, in_mid_save = 0, 0
    for _ in range(many(100, 6)):
        tally.tried(
            KILL, note=f"the newest checkpoint loads, no older than the last that was saved; TMPDIR {another_device}"
        )
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=save_for_ever, args=(folder, last + 1, theirs), daemon=True)
        child.start()
        theirs.close()
        if ours.poll(20):  # it has begun; else the kill would come before the first byte, and prove nothing
            last = int.from_bytes(ours.recv_bytes(), "little")
        time.sleep(rng.uniform(0, 0.05))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        try:
            while True:
                last = int.from_bytes(ours.recv_bytes(), "little")
        except EOFError:
            ours.close()
        leftovers = [path for path in folder.iterdir() if path.name.endswith(".tmp")]
        in_mid_save += bool(leftovers)
        newest = newest_checkpoint(tmp_path)
        loaded = load_verified(newest)
        assert newest not in leftovers
        assert last <= loaded["global_step"] <= last + 1
        assert torch.equal(loaded["state_dict"]["w"], torch.full((LIVE,), float(loaded["global_step"])))
        for path in leftovers:
            path.unlink()  # as a resumed run does
        last = loaded["global_step"]
        tally.survived(KILL)
    assert in_mid_save, "no kill fell into a save"


def flipped(file: Path, bit: int) -> bytes:
    """Flip one bit of a file; what it held before."""
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(changed))
    return whole


def test_flipped_bits_in_a_checkpoint(tmp_path: Path, tally: Tally, capsys: pytest.CaptureFixture[str]) -> None:
    """A flip in the checkpoint or in its digest: the other one is taken and a line says why, or nothing has changed."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    old, new = (folder / f"step_{step:08d}.ckpt" for step in (1, 2))
    for step, path in ((1, old), (2, new)):
        save_atomically(content(step, 50), path)
    rng = np.random.default_rng(12)
    harmless = 0
    flips = many(200, 20)
    for i in range(flips):
        tally.tried(
            BIT, note="the one before is taken with one line, or the content is the same; never another content"
        )
        file = new if i % 2 else digest_path(new)
        whole = flipped(file, int(rng.integers(8 * file.stat().st_size)))
        capsys.readouterr()
        taken = newest_checkpoint(tmp_path)
        told = capsys.readouterr().err.splitlines()
        step = load_verified(taken)["global_step"]
        assert torch.equal(load_verified(taken)["state_dict"]["w"], torch.full((50,), float(step)))
        if taken == new:
            assert file != new, "a changed checkpoint was loaded"
            assert (step, told) == (2, [])
            harmless += 1
        else:
            assert (taken, step, len(told)) == (old, 1, 1)
            assert told[0].startswith(f"skipped {new}: damaged")
            with pytest.raises(CheckpointError, match="damaged"):
                AtomicCheckpointIO().load_checkpoint(new)
        file.write_bytes(whole)
        tally.survived(BIT)
    # of a digest file's 85 bytes, 64 matter: the rest is the name
    assert harmless < flips / 4
    assert newest_checkpoint(tmp_path) == new


def test_flipped_bits_in_an_artefact(tmp_path: Path, tally: Tally) -> None:
    """In the weights: refused. In the configuration: refused, or what is loaded is what was saved."""
    stream: ResidualStream = stream_of(load_config("mini"))
    modulator = FieldModulator(stream)
    save_modulator(modulator, tmp_path / "a", "mini", [0, 2], {})
    saved = {name: value.clone() for name, value in modulator.state_dict().items()}
    rng = np.random.default_rng(13)
    for i in range(many(60, 6)):
        tally.tried(ARTEFACT, note="refused in one line; a flip that is loaded has changed no tensor")
        file = tmp_path / "a" / (WEIGHTS if i % 2 else CONFIG)
        whole = flipped(file, int(rng.integers(8 * file.stat().st_size)))
        try:
            model, _ = load_modulated(tmp_path / "a")
        except ValueError as error:
            said = str(error)
        else:
            said = ""
            assert file.name == CONFIG, "changed weights were loaded"
            found = model.modulator.state_dict()
            assert found.keys() == saved.keys()
            assert all(torch.equal(found[name], saved[name]) for name in saved)
            assert model.modulator.init_args == modulator.init_args
            assert model.modulation.layers == [0, 2]
        assert "\n" not in said
        file.write_bytes(whole)
        tally.survived(ARTEFACT)
    assert (tmp_path / "a" / CARD).is_file()
