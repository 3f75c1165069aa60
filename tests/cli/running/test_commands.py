"""fit, validate, test, predict and resume, as a user would, on a small WordNet with the bundled backbone."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.conftest import Call
from tests.runs import LEMMA, SOURCE

RUN = {
    "config.yaml", "metrics.csv", "checkpoints", "report.json", "report.md", "tensorboard", "modulator",
    "relational_bootstrap.npz",
}  # fmt: skip
# Sums of fp32 losses in another order of batches.
TOLERANCE = 1e-6


@pytest.fixture
def quick(wordnet: str) -> list[str]:
    return ["--data.nltk_data", wordnet, "--report.figures=false", "--relational.baselines=false"]


def figures(file: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with Path(file).open() as stream:
        for row in csv.DictReader(stream):
            for key, value in row.items():
                if value:
                    found.setdefault(key, []).append(float(value))
    return found


def report(file: str) -> dict[str, Any]:
    return dict(json.loads(Path(file).read_text()))


def test_through_a_run(call: Call, quick: list[str]) -> None:
    field = ["--config", "field.yaml", *SOURCE, *quick]
    said = call("fit", *field, "--trainer.max_epochs", "2", "--output", "mine", "--checkpoint.every_n_train_steps", "4")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("FieldModulator on mini: 9,752 parameters trained")
    assert "200 entries, 20 of them held out" in lines[1]
    assert lines[2:3] == ["run folder mine"]
    assert lines[3].startswith("before training: loss ")
    assert lines[4].startswith("epoch 1/2  step 6  loss ")
    assert lines[-1] == "ended after 12 steps: max_epochs (2) reached; mine/report.md"
    assert {path.name for path in Path("mine").iterdir()} == RUN
    assert {path.name for path in Path("mine/modulator").iterdir()} == {
        "modulator.safetensors",
        "modulator_config.json",
        "README.md",
    }
    config = yaml.safe_load(Path("mine/config.yaml").read_text())
    assert config["trainer"]["max_epochs"] == 2
    assert not {"output", "resume", "ckpt_path"} & config.keys()
    assert "MODULANT_RUN" not in os.environ

    # the loss before training is in the report, and what validate says of the untrained modulator
    logged = figures("mine/metrics.csv")
    assert {"train/loss", "val/loss", "alpha/mean", "alpha/layer_00_k1", "relational/pearson"} <= logged.keys()
    assert {"relational/pearson_lift", "relational/preservation", "pentachoron/cv", "pentachoron/z"} <= logged.keys()
    trained = report("mine/report.json")
    assert trained["loss"]["validation"]["first"] == logged["val/loss"][0]
    assert trained["loss"]["validation"]["last"] == logged["val/loss"][-1]
    assert len(logged["val/loss"]) == 2  # before, and where training ended
    said = call("validate", *field, "--output", "untrained")
    assert (said.code, said.err) == (0, "")
    untrained = figures("untrained/metrics.csv")
    for key in ("val/loss", "val/token_accuracy", "val/exact_match", "relational/pearson", "pentachoron/cv"):
        assert untrained[key][0] == pytest.approx(logged[key][0], rel=TOLERANCE), key

    # … and of the trained one what the fit said last, without touching its files
    before = Path("mine/report.json").read_bytes(), Path("mine/metrics.csv").read_bytes()
    said = call("validate", "--resume", "mine")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == "resuming from mine/checkpoints/step_00000012.ckpt"
    assert said.out.splitlines()[-1] == "report: mine/report_validate.md"
    again = figures("mine/metrics_validate.csv")
    for key in ("val/loss", "val/exact_match", "relational/pearson", "relational/pearson_lift", "pentachoron/cv"):
        assert again[key][0] == pytest.approx(logged[key][-1], rel=TOLERANCE, abs=1e-9), key
    assert before == (Path("mine/report.json").read_bytes(), Path("mine/metrics.csv").read_bytes())

    said = call("test", "--resume", "mine")
    assert (said.code, said.err) == (0, "")
    assert figures("mine/metrics_test.csv")["test/loss"][0] == pytest.approx(logged["val/loss"][-1], rel=TOLERANCE)

    # what decides the split is the run's own, and nothing of the run changes where it is not
    kept = {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()}
    said = call("fit", "--resume", "mine", "--trainer.max_epochs", "3", "--data.seed", "7")
    assert said.err.startswith("error: data.seed is 7, and the run's own is 42; it decides which entries are held out")
    assert {path: path.read_bytes() for path in Path("mine").rglob("*") if path.is_file()} == kept

    # overrides win, and are told in one line
    overrides = ["--trainer.max_epochs", "3", "--model.lr", "5e-3", "--model.weight_decay", "0.5"]
    said = call("fit", "--resume", "mine", *overrides)
    assert (said.code, said.err) == (0, "")
    first = said.out.splitlines()[0]
    assert first == (
        "resuming from mine/checkpoints/step_00000012.ckpt; changed: trainer.max_epochs 2 → 3, "
        "model.lr 0.001 → 0.005, model.weight_decay 0.01 → 0.5"
    )
    assert said.out.splitlines()[-1] == "ended after 18 steps: max_epochs (3) reached; mine/report.md"
    newest = torch.load("mine/checkpoints/step_00000018.ckpt", weights_only=True)
    groups = {group["name"]: group for group in newest["optimizer_states"][0]["param_groups"]}
    assert groups["gates"]["initial_lr"] == 5e-3
    assert groups["gates"]["weight_decay"] == 0.5
    assert groups["alphas"]["weight_decay"] == 0.0
    assert Path("mine/config_until_step_00000012.yaml").is_file()
    assert yaml.safe_load(Path("mine/config.yaml").read_text())["model"]["init_args"]["lr"] == 5e-3
    resumed = report("mine/report.json")
    assert resumed["loss"]["validation"]["first"] == logged["val/loss"][0]


@pytest.mark.slow  # tests/faults/test_kills.py does the like, and more
def test_a_run_that_is_resumed_in_mid_epoch_ends_as_if_unbroken(call: Call, quick: list[str]) -> None:
    whole = ["--trainer.max_epochs", "2", "--checkpoint.every_n_train_steps", "4", "--checkpoint.save_top_k", "-1"]
    assert call("fit", "--config", "field.yaml", *SOURCE, *quick, *whole, "--output", "run").code == 0
    end = Path("run/checkpoints/step_00000012.ckpt")
    unbroken = torch.load(end, weights_only=True)
    end.unlink()  # as if it had been killed between steps 8 and 12, of 6 an epoch
    said = call("fit", "--resume", "run")
    assert said.code == 0
    assert said.out.splitlines()[0] == "resuming from run/checkpoints/step_00000008.ckpt"
    resumed = torch.load(end, weights_only=True)
    for key, value in unbroken["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][key]), key
    assert unbroken["lr_schedulers"] == resumed["lr_schedulers"]


def test_predict(call: Call, quick: list[str]) -> None:
    Path("prompts.txt").write_text("a large cat\n\nsummarize: [bold]that burns[/] and [/]\n")
    said = call("predict", "--config", "lerp.yaml", *quick, "--data.prompts", "prompts.txt")
    assert (said.code, said.err) == (0, "")
    assert "[bold]that burns[/] and [/]" in said.out
    folder = Path("runs/lerp/version_0")
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert [row["prompt"] for row in rows] == ["a large cat", "summarize: [bold]that burns[/] and [/]"]
    assert {"prompt", "original", "modulated", "alpha_scale", "checkpoint", "settings"} <= rows[0].keys()
    # a list, and without prompts the held-out definitions
    assert "big dog" in call("predict", "--config", "lerp.yaml", *quick, "--data.prompts", "[big dog, small dog]").out
    said = call("predict", "--config", "lerp.yaml", *quick, "--output", "default")
    assert (said.code, said.err) == (0, "")
    assert len(Path("default/predictions.jsonl").read_text().splitlines()) == 20


def test_shorthands(call: Call, quick: list[str]) -> None:
    given = {
        "model.lr": "3e-3",
        "model.backbone": "mini",
        "model.layers": "[3,4]",
        "data.batch_size": "16",
        "data.val_fraction": "0.2",
        "data.prompts": "some.txt",
        "checkpoint.every_n_train_steps": "15",
        "trainer.max_epochs": "4",
        "pentachoron.reference": "band",
        "model.modulator.initial_alpha": "0.02",
    }
    said = call(
        "fit", "--config", "field", *quick, *(f"--{key}={value}" for key, value in given.items()), "--print_config"
    )
    assert (said.code, said.err) == (0, "")
    config = yaml.safe_load(said.out)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert (model["lr"], model["backbone"], model["layers"]) == (3e-3, "mini", [3, 4])
    assert model["modulator"]["init_args"]["initial_alpha"] == 0.02
    assert (data["batch_size"], data["val_fraction"], data["prompts"]) == (16, 0.2, "some.txt")
    assert config["checkpoint"]["every_n_train_steps"] == 15
    assert config["pentachoron"]["reference"] == "band"
    assert not Path("runs").exists()


def test_a_layer_list_and_a_short_run(call: Call, quick: list[str]) -> None:
    said = call("fit", "--config", "lerp", *LEMMA, *quick, "--model.layers", "[3, 4]", "--trainer.max_steps", "2")
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[-1].startswith("ended after 2 steps: max_steps (2) reached; runs/lerp/version_0/")
    # one before training, and one where it ended, in the middle of an epoch
    validation = report("runs/lerp/version_0/report.json")["loss"]["validation"]
    assert (validation["first_step"], validation["last_step"]) == (0, 1)
    assert validation["first"] > 0
    assert report("runs/lerp/version_0/report.json")["alpha"]["layers"] == [3, 4]


def test_weights_that_are_no_numbers_end_the_run(call: Call, quick: list[str]) -> None:
    field = ["--config", "field", *SOURCE, *quick]
    said = call("fit", *field, "--model.lr", "1e6", "--trainer.max_epochs", "3", "--output", "nan")
    assert said.code == 1
    assert said.err.startswith("error: step ")
    assert "first not finite in encoder layer 0; the largest alpha is 0.3500 (layer " in said.err
    assert said.err.count("\n") == 1
    assert report("nan/report.json")["run"]["outcome"] == "failed"
