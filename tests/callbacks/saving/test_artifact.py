"""What a fit leaves for others: an artefact whose card says what this run has measured."""

import json
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard

from callbacks.saving.files import load_verified
from modulators import load_modulated, write_card
from tests.runs import LEMMA, main, small_wordnet, tiny_backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artefact")
    words = ["fit", "--config", "lerp.yaml", *LEMMA, "--output", str(folder / "run"), "--trainer.max_steps", "3"]
    words += ["--data.nltk_data", str(small_wordnet(folder / "nltk_data")), "--relational.bootstrap", "40"]
    words += ["--model.backbone", tiny_backbone(folder / "t5"), "--model.modulator.n_geometric_dims=8"]
    main()(words)
    return folder / "run"


def test_the_card_has_the_figures_of_the_report(run: Path) -> None:
    text = (run / "modulator" / "README.md").read_text(encoding="utf-8")
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    last, interval = report["relational"]["last"], report["relational"]["interval"]["all"]
    found = {result.metric_type: result.metric_value for result in ModelCard(text).data.eval_results}
    assert found["pearson_lift"] == pytest.approx(last["pearson_lift"], abs=1e-6)
    ends = f"[{interval[0]:+.4f}, {interval[1]:+.4f}]".replace("-", "−")
    assert re.search(rf"\| all pairs \| .*{re.escape(ends)} \|", text)
    assert "**a lift without its controls is no result**" in text
    assert "3 steps, 1 epoch, seed 42" in text
    assert "Geometry before training: wordnet" in text
    assert "the archive that modulant ships" not in text  # nor was it used
    assert str(run.parent) not in text


def test_the_whole_run_can_be_loaded(run: Path) -> None:
    model, _ = load_modulated(run)
    assert model.modulation.summary().layers == [0, 1]


def test_controls_are_added_afterwards(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"figures\.json: cannot be read .*; name --output of probe\.py controls"):
        write_card(run, tmp_path)
    lift = {"all": {"mean": 0.5, "interval": [0.25, 0.75]}}
    control = {"parameters": 7, "seeds": [0], "pearson_lift": lift}
    (tmp_path / "figures.json").write_text(json.dumps({"controls": {"shuffled": control}, "verdicts": ["no more"]}))
    text = write_card(run, tmp_path)
    assert "| shuffled | 7 | 1 | +0.5000 [+0.2500, +0.7500] | – |" in text
    assert (run / "modulator" / "README.md").read_text(encoding="utf-8") == text


def test_the_artefact_is_of_the_best_step_and_everything_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = ["fit", "--config", "lerp.yaml", *LEMMA, "--output", str(run), "--trainer.max_epochs", "3"]
    words += ["--trainer.check_val_every_n_epoch", "1"]
    words += ["--data.nltk_data", str(small_wordnet(tmp_path / "nltk_data")), "--relational.bootstrap", "0"]
    words += ["--model.backbone", tiny_backbone(tmp_path / "t5"), "--model.modulator.n_geometric_dims=8"]
    words += ["--relational.baselines", "false", "--pentachoron.stop", "false", "--data.batch_size", "32"]
    # The representations leave the backbone's step by step, so the first validation is the best.
    main()([*words, "--checkpoint.monitor", "relational/preservation", "--checkpoint.mode", "max"])
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    history = report["relational"]["history"]
    step, steps = history[1]["step"], report["run"]["steps"]
    assert history[0]["step"] == 0
    assert step < steps
    assert report["run"]["result"]["step"] == step
    said = f"of step {step}: relational/preservation is the highest there, {history[1]['preservation']:.4f}"
    assert f"The artefact is {said}" in (run / "report.md").read_text(encoding="utf-8")
    assert f"modulator/ is {said}" in capsys.readouterr().out
    card = (run / "modulator" / "README.md").read_text(encoding="utf-8")
    assert f"are {said}" in card
    assert f"own representation) {history[1]['preservation']:.4f}" in card
    model, _ = load_modulated(run)
    saved = load_verified(run / "checkpoints" / f"step_{step:08d}.ckpt")["state_dict"]
    for key, value in model.modulation.modulator.state_dict().items():
        assert torch.equal(value, saved[f"modulator.{key}"])
    assert write_card(run) == card
