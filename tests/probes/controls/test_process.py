"""The whole command as a process, with real trainings of a few steps: stopped, gone on with, added to."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.runs import ROOT, small_wordnet

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("interruptible")]


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))


OFTEN = ("--trainer.check_val_every_n_epoch", "1", "--data.batch_size", "8")  # time to stop it in


def words(wordnet: str, *more: str) -> list[str]:
    configs = ["--config", "field.yaml", "--config", "debug.yaml", "--data.nltk_data", wordnet]
    quick = ["--report.figures", "false", "--trainer.max_epochs", "6", *OFTEN, "--output", "out", "--jobs", "1"]
    return [sys.executable, str(ROOT / "probe.py"), "controls", *configs, *quick, *more]


def done(tmp_path: Path, command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)


def test_it_is_stopped_and_goes_on(tmp_path: Path, wordnet: str) -> None:
    first = words(wordnet, "--seeds", "3", "--controls", "fixed_alpha")
    process = subprocess.Popen(first, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "out" / "field" / "seed_3.log"
    try:
        began = time.monotonic()
        while not (log.is_file() and "\nepoch 1/6" in log.read_text()):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() - began < 200
            time.sleep(0.1)
        refused = done(tmp_path, first)
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
        assert "another command" in refused.stderr
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "field seed 3: saved" in out
    assert err.startswith(
        "interrupted; 0 of 2 runs are done; resume with: python probe.py controls --config field.yaml"
    )
    assert "fixed_alpha" not in os.listdir(tmp_path / "out")

    finished = done(tmp_path, first)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "resuming from out/field/seed_3/checkpoints/step_" in log.read_text()
    out_folder = tmp_path / "out"
    for name in ("controls.md", "controls.csv", "controls.png", "controls.svg", "figures.json", "controls.json"):
        assert (out_folder / name).stat().st_size > 100, name
    found = json.loads((out_folder / "figures.json").read_text())
    assert list(found["controls"]) == ["field", "fixed_alpha"]
    assert found["paired"]
    assert found["controls"]["fixed_alpha"]["alpha"]["mean"] == pytest.approx(0.29154, abs=1e-6)
    assert found["controls"]["fixed_alpha"]["difference"]["held_out"]["interval"] is not None
    for name in ("field", "fixed_alpha"):
        config = yaml.safe_load((out_folder / name / "seed_3" / "config.yaml").read_text())
        assert config["seed_everything"] == 3
        assert config["data"]["init_args"]["order_seed"] == 3
        assert config["data"]["init_args"]["seed"] == 42
        assert config["pentachoron"]["stop"] is False
        assert json.loads((out_folder / name / "seed_3" / "report.json").read_text())["run"]["epochs"] == 6

    began = time.monotonic()
    again = done(tmp_path, first)
    assert again.returncode == 0
    assert "checking" not in again.stdout  # nothing is left to do
    assert time.monotonic() - began < 30
    other = done(tmp_path, words(wordnet, "--seeds", "3", "--controls", "fixed_alpha", "--model.lr", "0.1"))
    assert other.returncode == 2
    assert "have model.lr 0.005, not 0.1; name another --output" in other.stderr


def test_a_run_that_fails_is_told(tmp_path: Path, wordnet: str) -> None:
    """A layer that a configuration may name, and this backbone has not got."""
    command = words(wordnet, "--seeds", "0", "--controls", "fixed_alpha", "--model.layers", "[17]")
    said = done(tmp_path, command)
    assert said.returncode == 1
    assert [line.split(" (")[0] for line in said.stderr.splitlines()] == [
        "field seed 0: failed",
        "fixed_alpha seed 0: failed",
    ]
    assert "layers" in said.stderr.splitlines()[0]
    assert "out/field/seed_0.log" in said.stderr
    page = (tmp_path / "out" / "controls.md").read_text()
    assert "No run has ended yet" in page
    assert "- field seed 0: out/field/seed_0.log" in page


def test_a_wrong_key_is_told_before_anything_runs(tmp_path: Path, wordnet: str) -> None:
    said = done(tmp_path, words(wordnet, "--trainer.max_epoch", "3"))
    assert (said.returncode, said.stderr.count("\n")) == (2, 1)
    assert "field: --trainer.max_epoch is not a key; did you mean trainer.max_epochs?" in said.stderr
    assert not (tmp_path / "out").exists()


def test_a_fit_ends_with_a_control_beside_it(tmp_path: Path, wordnet: str) -> None:
    fit = [sys.executable, str(ROOT / "train.py"), "fit", "--config", "lerp.yaml", "--data.nltk_data", wordnet]
    fit += ["--report.figures", "false", "--trainer.max_epochs", "2", "--relational.bootstrap", "40", "--output", "run"]
    finished = done(tmp_path, [*fit, "--pentachoron.stop", "false", "--controls", "taxonomy_shuffled"])
    assert (finished.returncode, finished.stderr) == (0, "")
    assert "this run − taxonomy_shuffled on held-out:" in finished.stdout
    run = tmp_path / "run"
    for page in ("report.html", "report.md"):
        assert "its controls: taxonomy_shuffled" in (run / page).read_text()
    found = json.loads((run / "controls" / "figures.json").read_text())
    assert list(found["controls"]) == ["this run", "taxonomy_shuffled"]
    assert found["paired"]
    config, control = (
        yaml.safe_load((folder / "config.yaml").read_text())
        for folder in (run, run / "controls" / "taxonomy_shuffled" / "seed_42")
    )
    assert control["model"]["init_args"]["objective"]["init_args"].pop("taxonomy") == "shuffled"
    assert config["model"]["init_args"]["objective"]["init_args"].pop("taxonomy") == "wordnet"
    assert control["model"] == config["model"]
    assert control["data"] == config["data"]

    # The same by the probe does nothing again; what does not apply is known before anything is trained.
    probe = [sys.executable, str(ROOT / "probe.py"), "controls", "--of", "run", "--controls", "taxonomy_shuffled"]
    again = done(tmp_path, probe)
    assert (again.returncode, "runs to do" in again.stdout) == (0, False)
    wrong = done(tmp_path, [*fit[:-2], "--controls", "features_linear"])
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert "--controls: features_linear does not apply to LerpModulator" in wrong.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name in ("runs", "run")) == ["run"]
