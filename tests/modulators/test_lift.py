"""The library's one call measures what a run measures, to the bit."""

import json
from pathlib import Path
from typing import Any

import pytest

from modulators import FieldModulator, attach, load_modulated, load_t5, relational_lift, stream_of
from tests.runs import main, small_wordnet, tiny_backbone


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a field that was trained a little, and evaluated again."""
    folder = tmp_path_factory.mktemp("lift")
    common = ["--relational.bootstrap", "40", "--relational.baselines", "false", "--report.figures", "false"]
    common += ["--data.nltk_data", str(small_wordnet(folder / "nltk_data"))]
    words = ["--config", "field.yaml", "--model.backbone", tiny_backbone(folder / "t5"), "--trainer.max_steps", "3"]
    main()(["fit", *words, *common, "--model.modulator.initial_alpha", "0.2", "--output", str(folder / "run")])
    main()(["validate", "--resume", str(folder / "run"), *common])
    return folder / "run"


def test_the_figures_of_a_validation(run: Path) -> None:
    # the report and not the log, which holds figures in fp32
    section = json.loads((run / "report_validate.json").read_text())["relational"]
    written = section["last"] | {f"original/{key}": value for key, value in section["baseline"]["original"].items()}
    for name, ends in section["interval"].items():
        prefix = "" if name == "all" else f"{name}/"
        written |= {f"{prefix}pearson_lift_low": ends[0], f"{prefix}pearson_lift_high": ends[1]}
    model, tokenizer = load_modulated(run)
    found = relational_lift(model, tokenizer, bootstrap=40, nltk_data=str(run.parent / "nltk_data"))
    assert {
        "pearson_lift",
        "pearson_lift_low",
        "held_out/pearson_lift",
        "original/pearson",
        "preservation",
    } < found.keys()
    assert found == {key: written[key] for key in found}
    left_out = {key.removeprefix("original/").split("/")[0] for key in written.keys() - found.keys()}
    assert left_out == {"step", "chain", "category"}
    assert found["pearson_lift"] != 0


def test_a_test_part(run: Path) -> None:
    model, tokenizer = load_modulated(run)
    wordnet = str(run.parent / "nltk_data")
    found = relational_lift(model, tokenizer, bootstrap=40, nltk_data=wordnet, test_fraction=0.1)
    today = relational_lift(model, tokenizer, bootstrap=0, nltk_data=wordnet)
    for key in ("pearson", "held_out/pearson", "held_out/nouns/pearson_lift", "held_out/pairs"):  # the same synsets
        assert found[key] == pytest.approx(today[key], abs=1e-6)
    assert found["train/pairs"] < today["train/pairs"]
    assert {
        "validation/nouns/pearson_lift",
        "validation/pearson_lift_low",
        "original/validation/spearman",
    } < found.keys()


def test_without_an_interval(run: Path) -> None:
    model, tokenizer = load_modulated(run)
    found = relational_lift(model, tokenizer, bootstrap=0, nltk_data=str(run.parent / "nltk_data"))
    assert "pearson_lift_low" not in found
    assert found["pearson_lift"] == found["pearson"] - found["original/pearson"]


def test_refused(run: Path) -> None:
    model, tokenizer = load_t5(str(run.parent / "t5"))

    def refused(message: str, *arguments: Any) -> None:
        with pytest.raises(ValueError, match=message):
            relational_lift(model, tokenizer, *arguments)

    refused("no modulator is attached")
    handle = attach(model, FieldModulator(stream_of(model.config)))
    with handle.disabled():
        refused("the modulator is disabled", handle)
    model.train()
    refused("call model.eval()", handle)
    model.eval()
    tokenizer.name_or_path = ""
    refused("the tokenizer has no name_or_path", handle)
    handle.remove()
    refused("the modulator is removed", handle)
