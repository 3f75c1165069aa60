"""A run folder that an earlier layout of the code wrote goes on loading: resumed, evaluated, read by every command.

`data/run-0f5a915.zip` was made at commit 0f5a915, before the packages moved under `modulant`, by
`train.py fit --config field.yaml --trainer.max_epochs 1 --trainer.limit_train_batches 4
--checkpoint.every_n_train_steps 2 --relational.bootstrap 40 --relational.baselines false`; figures, pages, the files of
TensorBoard and all checkpoints but the last are left out.
"""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

import probe
from modulant.lexicon import Lexicon
from modulators import load_modulated
from tests.runs import main, small_wordnet

ARCHIVE = Path(__file__).parent / "data" / "run-0f5a915.zip"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall("old")
    return tmp_path / "old"


def report_of(run: Path, name: str = "report.json") -> dict[str, Any]:
    return dict(json.loads((run / name).read_text()))


def rows_of(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_its_artefact_holds_the_weights_of_its_checkpoint(old: Path) -> None:
    model, tokenizer = load_modulated(old)
    checkpoint = torch.load(old / "checkpoints" / "step_00000004.ckpt", weights_only=True)
    trained = model.modulation.modulator.state_dict()
    kept = {key.removeprefix("modulator."): value for key, value in checkpoint["state_dict"].items()}
    assert len(trained) > 10
    for name, value in trained.items():
        assert torch.equal(value, kept[name]), name
    text = report_of(old)["texts"][0]
    ids = tokenizer(f"summarize: {text['prompt']}", return_tensors="pt").input_ids
    assert tokenizer.decode(model.generate(ids, max_new_tokens=16)[0], skip_special_tokens=True) == text["modulated"]


def test_its_checkpoint_answers_as_it_did(old: Path) -> None:
    """`predict` restores module, modulator and callbacks from the checkpoint."""
    text = report_of(old)["texts"][0]
    main()(["predict", "--resume", str(old), "--prompt", text["prompt"]])
    (answer,) = (json.loads(line) for line in (old / "predictions.jsonl").read_text().splitlines())
    assert (answer["original"], answer["modulated"]) == (text["original"], text["modulated"])


def test_its_configuration_is_read(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By a resumed run that only says what it would do."""
    wordnet = small_wordnet(Path("nltk_data"))
    Lexicon.load(wordnet)
    capsys.readouterr()
    main()(["fit", "--resume", "old", "--trainer.max_epochs=2", f"--data.nltk_data={wordnet}", "--dry-run=json"])
    said = capsys.readouterr().out
    facts = json.loads(said[said.index("{") :])
    assert facts["training"]["steps"] == 8
    assert facts["data"]["split"] == "entry", "its configuration has no such key: there was no other split"
    assert facts["model"]["trained_parameters"] == report_of(old)["model"]["parameters"]["trainable"]


def test_the_probes_read_it(old: Path) -> None:
    assert probe.main(["runs", str(old), "--output", "out"]) == 0
    (row,) = json.loads(Path("out/runs.json").read_text())["runs"]
    relational = report_of(old)["relational"]
    assert row["lift"]["all"]["value"] == pytest.approx(relational["last"]["pearson_lift"], abs=1e-7)
    assert row["lift"]["held_out"]["interval"] == pytest.approx(relational["interval"]["held_out"], abs=1e-12)
    assert probe.main(["report", str(old)]) == 0
    assert "lift" in (old / "report.html").read_text().lower()


@pytest.mark.slow
def test_it_is_evaluated_again_and_then_trained_further(old: Path) -> None:
    before = report_of(old)
    rows = rows_of(old)
    main()(["validate", "--resume", str(old), "--relational.bootstrap", "40"])
    again = report_of(old, "report_validate.json")
    for key in ("pearson", "held_out/pearson", "spearman", "gradient", "pearson_lift", "preservation"):
        assert again["relational"]["last"][key] == pytest.approx(before["relational"]["last"][key], abs=1e-6), key
    assert again["relational"]["interval"]["all"] == pytest.approx(before["relational"]["interval"]["all"], abs=1e-6)
    assert again["pentachoron"]["last"]["cv"] == pytest.approx(before["pentachoron"]["last"]["cv"], abs=1e-5)
    main()(["fit", "--resume", str(old), "--trainer.max_epochs", "2", "--report.figures", "false"])
    after = report_of(old)
    assert after["run"]["steps"] == 8
    assert [check["step"] for check in after["relational"]["history"]] == [
        *(check["step"] for check in before["relational"]["history"]),
        8,
    ]
    assert after["relational"]["history"][:-1] == before["relational"]["history"]
    kept = [{key: row[key] for key in former if former[key]} for row, former in zip(rows_of(old), rows, strict=False)]
    assert kept == [{key: value for key, value in row.items() if value} for row in rows]
    assert (old / "checkpoints" / "step_00000008.ckpt").is_file()
