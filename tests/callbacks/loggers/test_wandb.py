"""What an offline run has recorded, read back record by record; and that nothing of W&B can fail a run."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from callbacks.loggers import wandb as run_wandb
from callbacks.loggers import wandb_files
from callbacks.loggers.wandb import STEP, RunWandb
from modulant.reports.series import read_metrics
from tests.runs import SOURCE, main, process, small_wordnet, tiny_backbone

wandb = pytest.importorskip("wandb")
SECRET = "hf_abcdefghijklmnopqrstuvwx"


def records(folder: Path) -> list[dict[str, Any]]:
    """An offline run, as W&B's own reader prints it."""
    words = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(folder)]
    said = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in said.stdout.splitlines()]


def of(kind: str, some: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record[kind] for record in some if record["type"] == kind]


def series(some: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Key → step → value, of all that was logged."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for item in (history["item"] for history in of("history", some)):
        for key, value in item.items():
            if key != STEP and not key.startswith(("_", "figures/")):
                found[key][int(item[STEP])] = float(value)
    return dict(found)


class Said(NamedTuple):
    out: str
    err: str


class Runs:
    """A training of two epochs, the same resumed for a third, and an evaluation of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        wordnet, backbone = str(small_wordnet(folder / "wordnet")), tiny_backbone(folder / "backbone")
        quick = ["--data.nltk_data", wordnet, "--model.backbone", backbone, "--relational.baselines=false"]
        quick += ["--relational.bootstrap=40", "--trainer.max_epochs=2", "--alpha_convergence.every_n_steps=4"]
        more = ["--trainer.logger.mode=offline", f"--trainer.logger.tags=[{SECRET}]", "--output=run"]
        self.first = self.train("fit", "--config", "field.yaml", "--config", "wandb.yaml", *SOURCE, *quick, *more)
        self.metrics = read_metrics(folder / "run" / "metrics.csv")
        self.resumed = self.train("fit", "--resume", "run", "--trainer.max_epochs=3")
        self.validated = self.train("validate", "--resume", "run")
        self.kept = [records(path) for path in sorted((folder / "run" / "wandb").glob("offline-run-*"))]

    def train(self, *argv: str) -> Said:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()(list(argv))
        return Said(out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("wandb"))


def test_it_adds_one_line_to_a_run(runs: Runs) -> None:
    for said in (runs.first, runs.resumed, runs.validated):
        assert said.err == ""
        assert said.out.count("W&B: run/wandb/offline-run-") == 1
    assert {path.name for path in runs.folder.iterdir()} == {"wordnet", "backbone", "run"}
    staged = list((runs.folder / "run" / "wandb" / "artifacts" / "staging").iterdir())
    assert all(path.stat().st_size for path in staged)


def test_everything_logged_is_in_metrics_csv_and_the_other_way_round(runs: Runs) -> None:
    logged = series(runs.kept[0])
    assert {key: sorted(values.items()) for key, values in logged.items()} == {
        key: [(step, pytest.approx(value, rel=1e-12)) for step, value in values] for key, values in runs.metrics.items()
    }
    alphas = {f"alpha/layer_{layer:02d}{expert}" for layer in (0, 1) for expert in ("", "_k1", "_k2", "_k4")}
    assert alphas <= logged.keys()
    for key in alphas:  # at the start, and whenever it is looked at
        assert sorted(logged[key]) == [0, 3, 7, 11]
    held_out = "relational/held_out/pearson_lift"
    assert {held_out, f"{held_out}_low", f"{held_out}_high", "pentachoron/low", "val/loss"} <= logged.keys()


def test_the_x_axis_is_the_trainers_step(runs: Runs) -> None:
    metrics = of("metric", runs.kept[0])
    assert {"glob_name": "*", "options": {"defined": True, "step_sync": True}, "step_metric": STEP} in metrics


def test_a_resumed_training_is_the_same_run_and_an_evaluation_another(runs: Runs) -> None:
    first, resumed, validated = (of("run", kept)[0] for kept in runs.kept)
    assert first["run_id"] == resumed["run_id"] != validated["run_id"]
    assert [run["display_name"] for run in (first, resumed, validated)] == ["run"] * 3
    assert [run["job_type"] for run in (first, resumed, validated)] == ["fit", "fit", "validate"]
    assert min(series(runs.kept[1])["alpha/mean"]) == 15  # continues after step 11
    assert "relational/pearson" in series(runs.kept[2])


def test_the_configuration_is_there_without_secrets(runs: Runs) -> None:
    config = of("config", runs.kept[0])[0]["update"]
    assert config["model"]["init_args"]["modulator"]["class_path"] == "modulators.FieldModulator"
    assert config["relational"]["bootstrap"] == 40
    assert config["trainer"]["logger"]["init_args"]["tags"] == ["***"]
    assert "args" not in str(of("environment", runs.kept[0]))  # the command line, which may hold more


def test_figures_report_and_model_are_there(runs: Runs) -> None:
    items = [history["item"] for history in of("history", runs.kept[0])]
    pictures = {key.rpartition(".")[0] for item in items for key in item if key.endswith("._type")}
    assert {"figures/alpha", "figures/loss", "figures/relational"} <= pictures
    report, model = of("artifact", runs.kept[0])
    assert (report["name"], report["type"], set(report["aliases"])) == ("report", "report", {"latest", "run"})
    paths = {entry["path"] for entry in report["manifest"]["contents"]}
    assert {"report.md", "report.json", "metrics.csv", "config.yaml", "figures/alpha.png"} <= paths
    assert (model["name"], model["type"], set(model["aliases"])) == ("modulator", "model", {"latest", "run"})
    paths = {entry["path"] for entry in model["manifest"]["contents"]}
    assert paths == {path.name for path in (runs.folder / "run" / "modulator").iterdir()}
    metadata = json.loads(model["metadata"])
    assert metadata["backbone"] == str(runs.folder / "backbone")
    assert len(metadata["sha256"]) == 64
    assert metadata["figures"]["relational/pearson_lift"] == runs.metrics["relational/pearson_lift"][-1][1]
    validated = of("artifact", runs.kept[2])
    assert [artifact["name"] for artifact in validated] == ["report"]
    assert "report_validate.md" in {entry["path"] for entry in validated[0]["manifest"]["contents"]}


@pytest.fixture
def logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunWandb:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # without credentials
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    logger = RunWandb(mode="online")
    logger.set_run_folder(str(tmp_path / "run"), "fit", resumed=False)
    return logger


@pytest.mark.parametrize("unreachable", [False, True])
def test_without_a_key_or_a_network_the_run_is_kept(
    logger: RunWandb,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    unreachable: bool,
) -> None:
    if unreachable:
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
        monkeypatch.setattr(run_wandb, "_INIT_S", 1)
    logger.log_metrics({"alpha/mean": 0.25}, step=7)
    logger.finalize("success")
    wandb.teardown()
    error = capfd.readouterr().err
    (line,) = [line for line in error.splitlines() if not line.startswith("wandb: [wandb.login()] Loaded")]
    assert line.startswith("warning: W&B: Failed" if unreachable else "warning: W&B: No API key configured.")
    assert line.endswith("run/wandb, for wandb sync")
    (kept,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert series(records(kept)) == {"alpha/mean": {7: 0.25}}


def test_a_failure_in_mid_run_is_reported_once(
    logger: RunWandb, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger._mode = None  # WANDB_MODE decides
    logger.log_metrics({"alpha/mean": 0.25}, step=7)
    logger.experiment.finish()  # by user code, or the service has died
    capfd.readouterr()
    for step in (8, 9):
        logger.log_metrics({"alpha/mean": 0.25}, step=step)
    logger.finalize("success")
    wandb.teardown()
    error = capfd.readouterr().err
    assert error.startswith("warning: W&B: ")
    assert error.endswith("only in metrics.csv\n")
    assert error.count("\n") == 1


def test_disabled_leaves_nothing(logger: RunWandb, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    logger._mode = "disabled"
    logger.log_metrics({"alpha/mean": 0.25}, step=7)
    logger.log_hyperparams({"a": 1})
    logger.finalize("success")
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize("mode", ["disabled", "offline"])
def test_what_is_never_uploaded_is_not_staged(
    logger: RunWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    """Neither by a disabled run, nor where a file cannot be copied: W&B has created its copy by then."""
    folder, logger._mode = tmp_path / "run", mode
    (folder / "report.md").write_text("# Training\n")
    (folder / "report.json").write_text("{}")
    wandb_files._attempt(logger, lambda: wandb_files._upload_report(logger, folder, "", 0))
    staged = [path for path in folder.glob("wandb/artifacts/staging/*") if path.is_file()]
    assert all(path.stat().st_size for path in staged)
    assert len(staged) == (0 if mode == "disabled" else 2)
    if mode == "offline":

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("shutil.copyfile", full)
        wandb_files._attempt(logger, lambda: wandb_files._upload_report(logger, folder, "", 1))
        assert [path for path in folder.glob("wandb/artifacts/staging/*") if path.is_file()] == staged
    logger.finalize("success")
    wandb.teardown()


@pytest.mark.slow
def test_of_two_processes_one_logs(tmp_path: Path) -> None:
    wordnet, backbone = str(small_wordnet(tmp_path / "wordnet")), tiny_backbone(tmp_path / "backbone")
    argv = ["--data.nltk_data", wordnet, "--model.backbone", backbone, "--relational.baselines=false"]
    argv += ["--relational.bootstrap=40", "--trainer.max_steps=2", "--report.figures=false", "--output=run"]
    argv += ["--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.logger.mode=offline"]
    configs = [word for name in ("field", "ddp", "wandb") for word in ("--config", f"{name}.yaml")]
    said = process("fit", *configs, *argv, cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert len(list((tmp_path / "run" / "wandb").glob("offline-run-*"))) == 1


@pytest.mark.filterwarnings("ignore:.*[Pp]ydantic:DeprecationWarning")  # wandb-workspaces on itself
def test_every_chart_of_the_dashboard_has_something_to_show(runs: Runs) -> None:
    """Each key and each pattern of `probe.py dashboard` is one that this run has logged."""
    from probes.dashboard import charts

    histories = of("history", runs.kept[0])
    logged = {key.removesuffix("._type") for history in histories for key in history["item"]}
    for title, panels in charts(["k1", "k2", "k4"]):
        for panel in panels:
            keys = [*getattr(panel, "y", ()), *getattr(panel, "media_keys", ())]
            # This WordNet holds nouns alone.
            assert {key for key in keys if "/verbs/" not in key} <= logged, title
            if (pattern := getattr(panel, "metric_regex", None)) is not None:
                each = 3 if "_\\w+/" in pattern else 1  # of two layers, and three experts
                assert len([key for key in logged if re.search(pattern, key)]) == 2 * each, pattern
            else:
                assert keys
