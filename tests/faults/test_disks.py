"""Disks that are full, read-only or gone: one line, the old files whole, and the run goes on when there is space."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import matplotlib.figure
import numpy as np
import pytest
import torch

from callbacks.loggers.metrics_csv import MetricsCSV
from callbacks.loggers.tensorboard import RunTensorBoard, quiet_writers
from callbacks.saving.files import load_verified, newest_checkpoint, save_atomically
from modulant.lexicon import Lexicon
from modulant.reports.drawing import plotting
from modulant.reports.series import read_rows
from modulant.storage import StorageError
from modulators import FieldModulator, ResidualStream, save_modulator
from tests.faults.conftest import Tally
from tests.faults.disks import Disk, mounted
from tests.runs import LEMMA, ROOT, main, small_wordnet

KIND = "disk full, read-only or gone, during a run"
PARTS = "disk full under each writer"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    yield from mounted(tmp_path / "disk", "1m")


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))
    Lexicon.load(folder)
    return folder


def content(step: int) -> dict[str, object]:
    return {"global_step": step, "w": torch.full((20_000,), float(step))}  # 80 kB


def one_line(error: pytest.ExceptionInfo[StorageError], place: Path) -> None:
    said = str(error.value)
    assert said.startswith(str(place)), said
    assert "no space is left on its disk; free some" in said
    assert "\n" not in said


def test_a_checkpoint_on_a_full_disk(disk: Disk, tally: Tally) -> None:
    folder = disk.path / "checkpoints"
    old, new = (folder / f"step_{step:08d}.ckpt" for step in (1, 2))
    save_atomically(content(1), old)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for leave in (0, 5_000, 60_000, 79_000):  # no room for anything, … nearly enough
        for path in (old, new):
            tally.tried(PARTS, note="StorageError in one line, the old file as it was, nothing beside it")
            ballast = disk.fill(leave)
            with pytest.raises(StorageError) as error:
                save_atomically(content(2), path)
            ballast.unlink()
            one_line(error, path)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
            assert load_verified(old)["global_step"] == 1
            tally.survived(PARTS)
    save_atomically(content(2), new)
    assert newest_checkpoint(disk.path) == new


def test_figures_on_a_full_disk(disk: Disk, tally: Tally) -> None:
    tally.tried(PARTS, 2)
    logger = MetricsCSV(str(disk.path))
    for step in range(3):
        logger.log_metrics({"loss": step / 7}, step)
    ballast = disk.fill()

    def log_on() -> None:
        for step in range(3, 400):  # until the last page is full
            logger.log_metrics({"loss": step / 7}, step)

    with pytest.raises(StorageError) as error:
        log_on()
    one_line(error, logger.path)
    assert logger.path.read_bytes().endswith(b"\n")
    rows = len(read_rows(logger.path)[1])
    with pytest.raises(StorageError):  # a new column is a new file
        logger.log_metrics({"other": 1.0}, 500)
    assert sorted(path.name for path in disk.path.iterdir()) == ["ballast", "metrics.csv"]
    ballast.unlink()
    logger.log_metrics({"other": 1.0}, 500)
    assert len(read_rows(logger.path)[1]) == rows + 1
    tally.survived(PARTS, 2)


def test_tensorboard_on_a_full_disk(disk: Disk, tally: Tally, capfd: pytest.CaptureFixture[str]) -> None:
    """Its writer thread fails, says nothing, and the next figure says it in one line; its end then says nothing."""
    tally.tried(PARTS)
    unexpected: list[str] = []
    usual, threading.excepthook = threading.excepthook, lambda arguments: unexpected.append(str(arguments.exc_value))
    try:
        with quiet_writers():
            logger = RunTensorBoard(str(disk.path), name="", version="tensorboard", flush_secs=0)
            logger.log_metrics({"loss": 1.0}, 0)
            logger.save()
            disk.fill()

            def log_on() -> None:
                for step in range(1, 2_000):
                    logger.log_metrics({"loss": 1.0}, step)
                    time.sleep(0.001)

            with pytest.raises(StorageError) as error:
                log_on()
            one_line(error, disk.path / "tensorboard")
            logger.finalize("failed")
    finally:
        threading.excepthook = usual
    assert unexpected == []
    assert capfd.readouterr().err == ""
    tally.survived(PARTS)


def test_a_drawing_and_an_artefact_on_a_full_disk(disk: Disk, tally: Tally) -> None:
    modulator = FieldModulator(ResidualStream(64, 2, 100))
    artefact = disk.path / "modulator"
    save_modulator(modulator, artefact, "mini", [0, 1], {})
    before = {path.name: path.read_bytes() for path in artefact.iterdir()}
    tally.tried(PARTS, 2)
    disk.fill()
    with torch.no_grad():
        modulator.alpha_logits.add_(1.0)
    with pytest.raises(StorageError) as error:
        save_modulator(modulator, artefact, "mini", [0, 1], {})
    one_line(error, artefact)
    assert {path.name: path.read_bytes() for path in artefact.iterdir()} == before
    with pytest.raises(StorageError) as error:
        plotting.save(matplotlib.figure.Figure(), disk.path / "figures" / "loss.png")
    one_line(error, disk.path / "figures")
    assert [path for path in disk.path.rglob("*") if "png" in path.name] == []
    tally.survived(PARTS, 2)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["full", "read-only", "damaged"])
def test_a_cache_that_keeps_nothing(disk: Disk, wordnet: str, state: str, tally: Tally) -> None:
    """WordNet's arrays and numba's machine code: one line for each, and the same answer."""
    kind = "cache full, read-only or damaged"
    tally.tried(kind, note="the same answer without it, one line for each cache")
    program = (
        "import sys; from modulant.lexicon import Lexicon; import numpy as np; "
        "print(int(Lexicon.load(sys.argv[1]).taxonomy.path_distances(np.arange(20)).sum()))"
    )
    environment = os.environ | {"MODULANT_CACHE": str(disk.path), "NUMBA_CACHE_DIR": str(disk.path), "PYTHONPATH": "."}

    def asked() -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-c", program, wordnet]
        return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)

    answer = int(Lexicon.load(wordnet).taxonomy.path_distances(np.arange(20)).sum())
    if state == "damaged":
        asked()
        files = [path for path in disk.path.rglob("*") if path.is_file()]
        assert len(files) > 6
        for path in files:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    elif state == "full":
        disk.fill()
    else:
        disk.protect()
    done = asked()
    assert done.stdout.splitlines()[-1] == str(answer)
    told = done.stderr.splitlines()
    expected = {"full": ("arrays cannot be cached", "machine code cannot be cached"), "damaged": ()}
    for line, part in zip(told, expected.get(state, ("arrays cannot be cached",)), strict=True):
        assert part in line
    if state == "damaged":
        assert asked().stdout == f"{answer}\n", "whole again"
    tally.survived(kind)


def fit(wordnet: str, run: Path) -> list[str]:
    words = ["fit", "--config", "field.yaml", *LEMMA, "--data.nltk_data", wordnet, "--report.figures=false"]
    quick = ["--relational.bootstrap", "0", "--relational.baselines", "false", "--trainer.max_epochs", "200"]
    return [*words, *quick, "--checkpoint.save_top_k", "-1", "--output", str(run)]


def goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """`--resume` takes the newest checkpoint and finishes, in this process: it is quicker."""
    steps = int(load_verified(newest_checkpoint(run))["global_step"])
    epochs = steps // 6 + 1
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    main()(["fit", "--resume", str(run), "--trainer.max_epochs", str(epochs)])
    told = capfd.readouterr().err.splitlines()
    assert all("will be rewritten" in line for line in told), told
    assert json.loads((run / "report.json").read_text())["run"]["outcome"] == "finished"
    assert int(load_verified(newest_checkpoint(run))["global_step"]) == 6 * epochs


def test_a_run_that_fills_its_disk(
    disk: Disk,
    tmp_path: Path,
    wordnet: str,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tally.tried(KIND, note="one line, exit 1, newest checkpoint verifies, nothing temporary left; --resume goes on")
    disk.remount("size=250k")  # a checkpoint takes 160k
    run = disk.path / "run"
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()(fit(wordnet, run))
    assert ended.value.code == 1
    err = capfd.readouterr().err
    assert err == (
        f"error: {run}/checkpoints/step_00000012.ckpt cannot be written: no space is left on its disk; free some, or "
        f"name a folder on another disk; then resume with: python train.py fit --resume {run}\n"
    )
    assert newest_checkpoint(run).name == "step_00000006.ckpt"
    assert not list(disk.path.rglob("*.tmp"))
    disk.remount("size=20m")
    goes_on(run, tmp_path, monkeypatch, capfd)
    tally.survived(KIND)


def fail(disk: Disk, run: Path, fault: str) -> None:
    if fault == "full":
        disk.fill()
    elif fault == "read-only":
        disk.protect()
    else:
        run.rename(run.with_name("away"))


# What is done while a run is on, and what its line says.
FAULTS = {
    "full": "no space is left on its disk",
    "read-only": "(Read-only file system); make its folder writable",
    "gone": "run is gone: it was removed or unmounted while a run wrote to it",
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_process_whose_disk_fails(
    disk: Disk,
    tmp_path: Path,
    wordnet: str,
    fault: str,
    tally: Tally,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    tally.tried(KIND)
    disk.remount("size=20m")
    run = disk.path / "run"
    words = [sys.executable, "-u", str(ROOT / "train.py"), *fit(wordnet, run)]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("epoch 3/"):
                break
        fail(disk, run, fault)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 1
    assert err.startswith(f"error: {run}"), err
    assert err.count("\n") == 1, err
    assert FAULTS[fault] in err
    assert not list(disk.path.rglob("*.tmp"))
    assert err.endswith(f"; then resume with: python train.py fit --resume {run}\n") == (fault != "gone"), err
    if fault == "gone":
        assert not run.exists(), "it was made again"
        assert newest_checkpoint(run.with_name("away")).name.startswith("step_")
    else:
        assert int(load_verified(newest_checkpoint(run))["global_step"]) >= 12
        if fault == "full":
            (disk.path / "ballast").unlink()
        else:
            disk.unprotect()
        goes_on(run, tmp_path, monkeypatch, capfd)
    tally.survived(KIND)
