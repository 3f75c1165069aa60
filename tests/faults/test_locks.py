"""Two commands and one run folder: the second is refused in one line that names the first."""

import json
from pathlib import Path

import pytest

from tests.faults.conftest import Tally
from tests.faults.processes import started, state_of

KIND = "second command in a run folder that is in use"
# A run that no health check ends while other commands start, however long they take.
ENDLESS = ("--trainer.max_epochs=100000", "--pentachoron.stop=false")


@pytest.mark.slow  # tests/cli/test_folders.py does the like without training
def test_a_second_command_in_the_folder_of_a_run(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    tally.tried(KIND, 4, note="one line that names the process, exit 1; after kill −9 the run resumes at once")
    run = tmp_path / "run"
    every = "--checkpoint.every_n_train_steps=4"
    with started(tmp_path, *quick, every, *ENDLESS, "--data.num_workers=1") as first:
        first.wait_for("epoch 1/100000", seconds=120)
        config = (run / "config.yaml").read_bytes()
        for argv in (quick, ["fit", "--resume=run"], ["validate", "--resume=run"]):
            second = tmp_path / "second"
            second.mkdir(exist_ok=True)
            if not (second / "run").exists():
                (second / "run").symlink_to(run)  # the same folder by another name; its output files are its own
            with started(second, *argv) as other:
                assert other.wait() == [1], other.err
            option = "--output" if argv is quick else "--resume"
            assert other.err.startswith(
                f"error: {option}: another command is at work in run (process {first.pids[0]} on "
            )
            assert other.err.count("\n") == 1
            assert other.out == ""
        with started(second, "validate", "--resume=run", "--output=elsewhere") as other:
            assert other.wait() == [0], other.err
        assert (run / "config.yaml").read_bytes() == config
        assert not list(run.glob("*_validate*"))
        first.kill()
        first.wait()
    with started(tmp_path, "fit", "--resume=run", "--trainer.max_steps=10000000") as resumed:
        resumed.wait_for("resuming from run/checkpoints/step_", seconds=120)
        resumed.kill()
        resumed.wait()
    tally.survived(KIND, 4)


def test_a_run_is_evaluated_while_it_trains(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    """Its checkpoint is replaced at each step, many times before a second command has built its model."""
    kind = "evaluation of a run that replaces its checkpoints"
    tally.tried(kind, note="the checkpoint that was the newest when the evaluation began is the one it measures")
    every = ("--checkpoint.every_n_train_steps=1", "--checkpoint.save_top_k=1")
    with started(tmp_path, *quick, *every, *ENDLESS) as first:
        first.wait_for("epoch 1/100000", seconds=120)
        (tmp_path / "second").mkdir()
        (tmp_path / "second" / "run").symlink_to(tmp_path / "run")
        with started(tmp_path / "second", "validate", "--resume=run", "--output=elsewhere") as other:
            assert other.wait() == [0], other.err
    read = Path(json.loads((tmp_path / "second/elsewhere/report.json").read_text())["run"]["resumed_from"])
    assert other.out.startswith(f"resuming from {read}")
    assert other.err == ""
    tally.survived(kind)


def test_two_runs_that_begin_at_the_same_moment(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    tally.tried(KIND)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run").symlink_to(tmp_path / "run")
    (tmp_path / "run").mkdir()
    argv = [*quick, "--trainer.max_epochs=1", "--relational.bootstrap=0"]
    with started(tmp_path / "a", *argv, "--model.lr=0.25") as a, started(tmp_path / "b", *argv, "--model.lr=0.5") as b:
        codes = {"a": a.wait()[0], "b": b.wait()[0]}
    assert sorted(codes.values()) == [0, 1], (a.err, b.err)
    lost, won = (a, "lr: 0.5") if codes["a"] else (b, "lr: 0.25")
    assert "another command is at work in run" in lost.err or "run already holds checkpoints" in lost.err
    assert lost.err.count("\n") == 1
    assert won in (tmp_path / "run/config.yaml").read_text()
    assert state_of(tmp_path / "run")["global_step"] == 23
    tally.survived(KIND)
