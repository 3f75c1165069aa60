"""The report of real runs: finished, resumed, failed, interrupted, evaluated; what is in it, and what must not be."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from callbacks.loggers.metrics_csv import MetricsCSV
from callbacks.measures.alpha_convergence import AlphaConvergence
from callbacks.measures.pentachoron_health import PentachoronHealth
from callbacks.measures.relational_alignment import RelationalAlignment
from callbacks.reporting.console import RunConsole
from callbacks.reporting.report import RunReport
from callbacks.reporting.values import stop_reason
from callbacks.saving.checkpoints import RunCheckpoint
from callbacks.saving.files import AtomicCheckpointIO, newest_checkpoint
from modulant.reports.run.charts import charts, draw
from modulant.reports.run.verdict import verdict
from modulant.reports.series import read_metrics
from modulant.reports.wording import number

KEYS = ["run", "model", "data", "environment", "alpha", "relational", "pentachoron", "loss", "stop", "time", "memory"]
KEYS += ["figures", "texts"]
MakeTrainer = Callable[..., pl.Trainer]


@pytest.fixture
def full(tmp_path: Path, make_trainer: MakeTrainer) -> Callable[..., pl.Trainer]:
    """A trainer with every callback that a report reads."""

    def make(*more: pl.Callback, figures: bool = False, **overrides: Any) -> pl.Trainer:
        measures = [AlphaConvergence(every_n_steps=2, window=5), RelationalAlignment(), PentachoronHealth(stop=False)]
        return make_trainer(
            logger=MetricsCSV(str(tmp_path / "run")),
            callbacks=[*measures, *more, RunReport(figures), RunConsole(), RunCheckpoint()],
            enable_checkpointing=True,
            plugins=[AtomicCheckpointIO()],
            **overrides,
        )

    return make


def read(folder: Path, name: str = "report.json") -> dict[str, Any]:
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    return json.loads((folder / name).read_text(encoding="utf-8"), parse_constant=refuse)


def test_finished_run(tmp_path: Path, full: Callable[..., pl.Trainer], tiny_module: Any, tiny_data: Any) -> None:
    full(figures=True).fit(tiny_module, tiny_data)
    folder = tmp_path / "run"
    report = read(folder)
    assert list(report) == KEYS
    assert report["run"]["outcome"] == "finished"
    assert report["run"]["steps"] == 40
    assert report["run"]["epochs"] == 2
    assert report["run"]["checkpoints"] == ["checkpoints/step_00000020.ckpt", "checkpoints/step_00000040.ckpt"]
    assert report["stop"]["reason"] == "max_epochs (2) reached"
    assert report["model"]["modulator"] == "TinyModulator"
    assert report["model"]["parameters"] == {"trainable": 6, "frozen": 420, "total": 426}
    assert report["model"]["describe"] == {"backbone": "tiny", "lr": 0.05}
    assert report["data"]["corpus"] == "sines"
    assert torch.__version__.startswith(report["environment"]["versions"]["torch"])  # without +cu130
    assert report["time"]["total_s"] > sum(report["time"]["per_epoch_s"]) > 0
    assert report["memory"]["peak_resident_bytes"] > 2**20
    # full precision: exactly what the module holds
    assert report["alpha"]["final"] == tiny_module.modulator.alphas.detach().double().tolist()
    assert np.shape(report["alpha"]["initial"]) == (3, 2)
    assert report["alpha"]["experts"] == ["k1", "k2"]
    assert report["relational"]["last"]["pearson"] - report["relational"]["baseline"]["original"]["pearson"] == (
        pytest.approx(report["relational"]["last"]["pearson_lift"], abs=1e-12)
    )
    assert report["pentachoron"]["last"]["cv"] > 0
    assert report["loss"]["validation"]["first_step"] == 19
    assert report["loss"]["validation"]["last_step"] == 39
    assert set(report["figures"]) == {"loss", "alpha", "alpha_final", "relational", "bands", "pentachoron"}
    for path in report["figures"].values():
        assert (folder / path).stat().st_size > 5000
    assert not list(folder.rglob("*.tmp"))
    page_reads_as_one((folder / "report.md").read_text(encoding="utf-8"), report)


def page_reads_as_one(page: str, report: dict[str, Any]) -> None:
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == [
        "# Training of TinyModulator",
        "## Figures",
        "## Read with care",
        "## Before → after",
        "## Each figure in words",
        "## Populations",
        "## By part of speech",
        "## α per layer",
        "## More figures",
        "## What ran",
        "## Resume, or measure again",
    ]
    lift = report["relational"]["last"]["pearson_lift"]
    assert f"{number(lift, signed=True)} (" in page
    assert page.count("\n| 0 | ") == page.count("\n| 2 | ") == 1
    assert "held-out × held-out, Pearson" in page
    assert "one run with one seed" in page
    assert "controls" in page
    assert "--resume" in page
    for path in report["figures"].values():
        assert f"]({path})" in page
    assert "None" not in page
    assert "nan" not in page


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (RuntimeError("boom\nmore"), "failed", "RuntimeError: boom"),
        (KeyboardInterrupt(), "interrupted", "interrupted by the user (Ctrl-C)"),
        (SIGTERMException(), "interrupted", "interrupted by SIGTERM"),
    ],
)
def test_run_that_did_not_end_by_itself(
    tmp_path: Path,
    full: Callable[..., pl.Trainer],
    tiny_module: Any,
    tiny_data: Any,
    explode: Any,
    error: BaseException,
    outcome: str,
    reason: str,
) -> None:
    with pytest.raises((RuntimeError, SystemExit)):
        full(explode(33, error)).fit(tiny_module, tiny_data)
    report = read(tmp_path / "run")
    assert list(report) == KEYS
    assert report["run"]["outcome"] == outcome
    assert report["stop"]["reason"] == reason
    assert report["run"]["steps"] == 33
    assert report["loss"]["validation"]["last_step"] == 19
    page = (tmp_path / "run" / "report.md").read_text()
    assert f"**{outcome.capitalize()}** after 33 steps" in page
    assert reason in page
    assert "did not end by itself" in page


@pytest.mark.parametrize("step", [5, 33])
def test_figures_of_an_interrupted_run_say_when_they_were_measured(
    tmp_path: Path,
    full: Callable[..., pl.Trainer],
    tiny_module: Any,
    tiny_data: Any,
    explode: Any,
    step: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The one validation, at step 20, comes too late for a run that ends at 5: what it has measured is untrained."""
    with pytest.raises(SystemExit):
        full(explode(step, KeyboardInterrupt())).fit(tiny_module, tiny_data)
    report, page = read(tmp_path / "run"), (tmp_path / "run" / "report.md").read_text()
    relational, logged = report["relational"], report["run"]["metrics"]["relational/pearson"]
    table = page.split("## Before → after")[1].split("\n#")[0].splitlines()
    rows = {line.split(" | ")[0].strip("| "): line for line in table if line.startswith("| ")}
    assert table[2].endswith("| at step |")
    assert rows["mean α"].endswith(f" {step} |")
    ended = f"ended after {step} steps: interrupted by the user (Ctrl-C); "
    if step == 5:
        assert (relational["last"], relational["first"]["step"]) == (None, 0)
        assert report["pentachoron"]["last"] is None
        assert logged == {"first": relational["first"]["pearson"], "first_step": 0}
        for name in ("Pearson with path similarity", "Spearman", "CV of pentachoron volumes"):
            assert rows[name].rsplit(" | ", 3)[1:] == ["not measured", "–", "– |"], rows[name]
        assert f"{ended}nothing measured since; " in capsys.readouterr().out
    else:
        assert relational["last"]["step"] == 20
        assert rows["Pearson with path similarity"].endswith(" 20 |")
        assert rows["validation loss (nats per token)"].endswith(" 20 |")
        assert f"{ended}measured last at step 20; " in capsys.readouterr().out
        shown = charts(report, read_metrics(tmp_path / "run" / "metrics.csv"))
        assert all(shown[name].title.endswith(" at step 20") for name in ("loss", "lift", "bands", "cv", "volumes"))
        assert all(" at step 20" in text for name, text in verdict(report) if name in ("Lift, held-out", "Pentachora"))
    # The checkpoint that the interruption left is the one to resume from.
    assert f"newest checkpoint: `checkpoints/step_{step:08d}.ckpt`" in page


class Refuse(pl.Callback):
    """Raises before the first step."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_a_run_that_trains_nothing_leaves_no_page(
    tmp_path: Path, full: Callable[..., pl.Trainer], make_module: Any, tiny_data: Any, error: BaseException
) -> None:
    folder = tmp_path / "run"
    with pytest.raises((RuntimeError, SystemExit)):
        full(Refuse(error), figures=True).fit(make_module(), tiny_data)
    assert not list(folder.glob("report*"))
    assert not (folder / "figures").exists()
    full(max_epochs=1).fit(make_module(), tiny_data)
    before = (folder / "report.json").read_bytes()
    with pytest.raises((RuntimeError, SystemExit)):
        full(Refuse(error), max_epochs=2).fit(make_module(), tiny_data, ckpt_path=str(newest_checkpoint(folder)))
    assert (folder / "report.json").read_bytes() == before


def test_an_interval_is_of_the_last_check_or_none(
    tmp_path: Path, full: Callable[..., pl.Trainer], make_module: Any, tiny_data: Any, explode: Any
) -> None:
    """A run of one epoch ends with an interval; resumed and interrupted after its next validation, it has none."""
    full(max_epochs=1).fit(make_module(), tiny_data)
    assert read(tmp_path / "run")["relational"]["interval"]
    with pytest.raises(RuntimeError):
        full(explode(45, RuntimeError("boom")), max_epochs=3).fit(
            make_module(), tiny_data, ckpt_path=str(newest_checkpoint(tmp_path / "run"))
        )
    relational = read(tmp_path / "run")["relational"]
    assert (relational["last"]["step"], relational["interval"]) == (40, {})


class BrokenSummary(AlphaConvergence):
    def summary(self) -> dict[str, Any]:
        raise OSError("no figures")


def test_a_report_that_fails_does_not_hide_the_first_error(
    make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any, explode: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(callbacks=[BrokenSummary(), explode(3, RuntimeError("boom")), RunReport()])
    with pytest.raises(RuntimeError, match="boom"):
        trainer.fit(tiny_module, tiny_data)
    assert "no report was written: OSError: no figures" in capsys.readouterr().err


def test_resumed_run_adds_time_and_keeps_where_alpha_started(
    tmp_path: Path, full: Callable[..., pl.Trainer], make_module: Any, tiny_data: Any
) -> None:
    full(max_epochs=1).fit(make_module(), tiny_data)
    first = read(tmp_path / "run")
    newest = str(newest_checkpoint(tmp_path / "run"))
    full(max_epochs=3).fit(make_module(), tiny_data, ckpt_path=newest)
    second = read(tmp_path / "run")
    assert second["run"]["resumed_from"] == newest
    assert second["run"]["epochs"] == 3
    assert second["time"]["per_epoch_s"][0] == first["time"]["per_epoch_s"][0]
    assert second["time"]["total_s"] > second["time"]["this_process_s"]
    assert second["alpha"]["initial"] == first["alpha"]["initial"]
    assert second["loss"]["validation"]["first_step"] == 19
    assert [check["step"] for check in second["relational"]["history"]] == [0, 20, 40, 60]


def test_evaluation_beside_a_training_leaves_its_files_alone(
    tmp_path: Path, full: Callable[..., pl.Trainer], make_module: Any, tiny_data: Any
) -> None:
    full().fit(make_module(), tiny_data)
    folder = tmp_path / "run"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    module = make_module()
    full().validate(module, tiny_data, ckpt_path=str(newest_checkpoint(folder)), verbose=False)
    assert all(path.read_bytes() == content for path, content in before.items())
    report = read(folder, "report_validate.json")
    assert list(report) == KEYS
    assert report["run"]["stage"] == "validate"
    assert report["run"]["steps"] == 40
    assert report["run"]["metrics_file"] == "metrics_validate.csv"
    trained = read(folder)
    assert report["alpha"] == trained["alpha"]
    assert report["relational"]["last"]["pearson"] == trained["relational"]["last"]["pearson"]
    assert len(report["relational"]["history"]) == 1
    assert report["time"]["per_epoch_s"] == []
    # what goes over time is the training's
    drawn = draw(report | {"relational": {}, "pentachoron": {}}, {"val/loss": [(0, 1.0)]}, tmp_path, "_validate")
    assert drawn == {"alpha_final": "figures/alpha_final_validate.png"}


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_evaluation_in_a_folder_of_its_own(
    tmp_path: Path, full: Callable[..., pl.Trainer], tiny_module: Any, tiny_data: Any, stage: str
) -> None:
    getattr(full(), stage)(tiny_module, tiny_data, verbose=False)
    report = read(tmp_path / "run")
    assert report["run"]["stage"] == stage
    assert report["alpha"]["initial"] == report["alpha"]["final"]
    assert ("validation" if stage == "validate" else "test") in report["loss"]
    page = (tmp_path / "run" / "report.md").read_text()
    assert page.startswith(f"# {'Validation' if stage == 'validate' else 'Test'} of TinyModulator")


class Bare(pl.LightningModule):
    """No modulator, nothing logged, no DataModule."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_report_without_any_measure(tmp_path: Path, make_trainer: MakeTrainer, tiny_data: Any) -> None:
    make_trainer(callbacks=[RunReport()], max_steps=3, max_epochs=-1).fit(Bare(), tiny_data.train_dataloader())
    report = read(tmp_path / "run")
    assert list(report) == KEYS
    assert report["relational"] == report["pentachoron"] == report["data"] == report["figures"] == {}
    assert report["alpha"]["final"] is None
    assert report["run"]["metrics_file"] is None
    assert report["stop"]["reason"] == "max_steps (3) reached"
    page = (tmp_path / "run" / "report.md").read_text()
    assert page.startswith("# Training of Bare\n\nEnded after 3 steps")
    assert "α" not in page


class Stopper(pl.Callback):
    """Stops, and says why."""

    stop_reason: str | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == 7:
            trainer.should_stop = True
            self.stop_reason = "Stopper: seven is enough."


def test_a_callbacks_own_reason_comes_first(make_trainer: MakeTrainer, tiny_module: Any, tiny_data: Any) -> None:
    trainer = make_trainer(callbacks=[Stopper()])
    trainer.fit(tiny_module, tiny_data)
    assert stop_reason(trainer) == "Stopper: seven is enough"


def test_kill_between_write_and_replace_leaves_the_old_report(
    tmp_path: Path, full: Callable[..., pl.Trainer], tiny_module: Any, tiny_data: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(max_epochs=1).fit(tiny_module, tiny_data)
    old = (tmp_path / "run" / "report.json").read_bytes()
    trainer = full(max_epochs=2)
    real = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).name == "report.json":
            raise OSError("killed")
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(OSError, match="killed"):
        trainer.fit(tiny_module, tiny_data, ckpt_path=str(newest_checkpoint(tmp_path / "run")))
    assert (tmp_path / "run" / "report.json").read_bytes() == old
