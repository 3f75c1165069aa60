"""Whose a run folder is: nobody else's files are written over, and one process at a time is at work in it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cli.check import check
from cli.command import read_command
from cli.folder import VARIABLE, RunFolder
from modulant.storage.lock import LOCK, FolderLock, LockedError, holder
from tests.cli.test_command import saved_run
from tests.runs import ROOT

FIELD = ("--config", "field.yaml")
LAUNCHERS = ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_JOB_ID", "WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (VARIABLE, *LAUNCHERS):
        monkeypatch.delenv(name, raising=False)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


FOREIGN = {
    "a report": {"report.md": "mine", "figures/alpha.png": "mine", "metrics.csv": "mine"},
    "another program's configuration": {"config.yaml": "model: {class_path: my.Model}\ndata: {class_path: my.Data}\n"},
    "a configuration that is no YAML": {"config.yaml": "{"},
    "a configuration that is a list": {"config_test.yaml": "- model\n"},
    "one hidden file": {".env": "mine"},
    "a folder": {"src/a.py": "mine"},
    "other runs": {"field/version_0/config.yaml": "model: {class_path: modulators.ModulatedT5}\n"},
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_other_files_are_never_written_over(name: str, subcommand: str) -> None:
    for path, text in FOREIGN[name].items():
        file = Path("docs", path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    run, before = saved_run(), contents(Path("docs"))
    first = min(path.split("/")[0] for path in FOREIGN[name])
    for words in (FIELD, ("--resume", str(run))):
        with pytest.raises(
            ValueError, match=rf"--output: docs holds other files \({first}.*\) and no run; name an emp"
        ):
            check(read_command([subcommand, *words, "--output", "docs"]))
    assert contents(Path("docs")) == before


def test_the_root_of_all_files_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--output: / holds other files \(.*, …\) and no run"):
        check(read_command(["fit", *FIELD, "--output", "/"]))


def test_output_in_a_file_is_checked_too() -> None:
    Path("docs").mkdir()
    Path("docs/notes.md").touch()
    Path("mine.yaml").write_text("output: docs\n")
    with pytest.raises(ValueError, match=r"--output: docs holds other files \(notes.md\)"):
        check(read_command(["fit", *FIELD, "--config", "mine.yaml"]))


@pytest.mark.parametrize("held", [(), (".gitkeep", ".DS_Store"), (".writable-1",), (LOCK, "tensorboard", "notes.md")])
def test_an_empty_folder_and_what_a_killed_run_left_are_taken(held: tuple[str, ...]) -> None:
    Path("mine").mkdir()
    for name in held:
        Path("mine", name).touch()
    check(read_command(["fit", *FIELD, "--output", "mine"]))


def test_a_run_of_ours_is_evaluated_and_its_own_files_may_be_beside_it() -> None:
    run = saved_run()
    (run / "notes.md").touch()
    for subcommand in ("validate", "test", "predict"):
        check(read_command([subcommand, *FIELD, "--output", str(run)]))
        check(read_command([subcommand, "--resume", str(run)]))
        check(read_command([subcommand, "--resume", str(run), "--output", str(run.absolute())]))


def test_a_run_is_not_resumed_into_another_run() -> None:
    saved_run().rename("other")
    run = saved_run()
    with pytest.raises(ValueError, match="--output: other already holds checkpoints"):
        check(read_command(["fit", "--resume", str(run), "--output", "other"]))


def test_a_folder_that_was_empty_is_left_empty() -> None:
    Path("mine").mkdir()
    folder = RunFolder(read_command(["fit", *FIELD, "--output", "mine"]))
    folder.claim()
    (folder.path / "config.yaml").touch()
    (folder.path / "tensorboard").mkdir()
    folder.discard_if_empty()
    folder.release()
    assert list(Path("mine").iterdir()) == []


def test_a_run_of_an_earlier_version_that_named_another_folder() -> None:
    """`dirpath` made a run that could not be resumed, and `default_root_dir` was not followed."""
    run = saved_run()
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["default_root_dir"] = "somewhere"
    config["checkpoint"]["dirpath"] = "elsewhere"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    merged = check(read_command(["fit", "--resume", str(run)]))
    assert "default_root_dir" not in merged["trainer"]
    assert "dirpath" not in merged["checkpoint"]
    (run / "checkpoints").rename("elsewhere")
    line = (
        "no checkpoint in run/checkpoints: nothing to resume from; its configuration put them into elsewhere: move them"
    )
    with pytest.raises(ValueError, match=line):
        check(read_command(["fit", "--resume", str(run)]))


@contextmanager
def other_process(folder: Path, program: str = "time.sleep(60)") -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a folder."""
    before = "import os, sys, time; from pathlib import Path; from modulant.storage.lock import FolderLock"
    text = f"{before}\nlock = FolderLock(Path({str(folder)!r}))\nprint('held', flush=True)\n{program}\n"
    words = [sys.executable, "-c", text]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_a_folder_in_use_is_refused_and_says_by_whom(subcommand: str) -> None:
    run = saved_run()
    with other_process(run) as process:
        who = rf"\(process {process.pid} on {socket.gethostname()}, since 20\d\d-.* UTC\)"
        with pytest.raises(ValueError, match=rf"--resume: another command is at work in run {who}; ") as caught:
            check(read_command([subcommand, "--resume", str(run)]))
        assert ("another folder with --output" in str(caught.value)) == (subcommand != "fit")
        check(read_command([subcommand, "--resume", str(run), "--output", "elsewhere"]))  # which only reads the run
        Path("mine").mkdir()
        with other_process(Path("mine")), pytest.raises(ValueError, match="--output: another command is at work in mi"):
            check(read_command([subcommand, *FIELD, "--output", "mine"]))
    # killed by −9: its file is there, and its lock is not
    assert (run / LOCK).is_file()
    check(read_command([subcommand, "--resume", str(run)]))


def test_who_comes_second_in_a_race_touches_nothing() -> None:
    """Both have found the folder free before their imports; and again when the first has already ended."""
    words = ["fit", *FIELD, "--output", "mine"]
    first, second = RunFolder(read_command(words)), RunFolder(read_command(words))
    first.claim()
    with pytest.raises(ValueError, match="--output: another command is at work in mine"):
        second.claim()
    second.discard_if_empty()
    second.release()
    assert (first.path / LOCK).is_file()
    (first.path / "checkpoints").mkdir()
    (first.path / "checkpoints/step_00000001.ckpt").touch()
    first.release()
    assert not (first.path / LOCK).exists()
    with pytest.raises(ValueError, match="--output: mine already holds checkpoints"):
        second.claim()
    second.discard_if_empty()
    second.release()
    assert (first.path / "checkpoints/step_00000001.ckpt").is_file()


def test_processes_of_one_run_share_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    command = read_command(["fit", *FIELD, "--output", "mine"])
    for name, value in (("TORCHELASTIC_RUN_ID", "job7"), ("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    first = RunFolder(command)
    first.claim()
    monkeypatch.setenv("RANK", "1")
    second = RunFolder(command)
    assert second.claim() == first.path
    second.release()
    assert holder(first.path) is not None  # it is the first that holds it
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job8")
    with pytest.raises(ValueError, match="another command is at work in mine"):
        RunFolder(command)
    first.release()


def test_a_lock_ends_with_its_process_and_not_with_a_worker_that_outlives_it(tmp_path: Path) -> None:
    program = "pid = os.fork()\nif pid == 0: time.sleep(60)\nprint(pid, flush=True)\ntime.sleep(60)"
    with other_process(tmp_path, program) as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        try:
            with pytest.raises(LockedError, match=f"process {process.pid} on "):
                FolderLock(tmp_path)
            process.kill()
            process.wait()
            os.kill(worker, 0)  # it lives
            lock = FolderLock(tmp_path)
            assert f"process {os.getpid()} on " in str(holder(tmp_path))
            lock.release()
            lock.release()
            assert holder(tmp_path) is None
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_lock_is_never_held_twice(tmp_path: Path) -> None:
    """Each removes the file when it ends, while the others open it: of who holds it, there is one at each time."""
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom modulant.storage.lock import FolderLock, LockedError\n"
        "folder, taken = Path(sys.argv[1]), 0\nend = time.monotonic() + 20\n"
        "while taken < 50 and time.monotonic() < end:\n"
        "    try: lock = FolderLock(folder)\n"
        "    except LockedError: continue\n"
        "    inside = os.open(folder / 'inside', os.O_CREAT | os.O_EXCL)\n"  # fails if another is in
        "    os.close(inside); (folder / 'inside').unlink(); taken += 1\n"
        "    lock.release()\n"
        "sys.exit(taken < 50)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(words, env=environment) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []
