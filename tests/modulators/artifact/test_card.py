"""A card says what was measured, what was not, and nothing of the machine; the hub's own library reads it."""

import json
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from modulators.artifact.card import model_card, published

CONFIG: dict[str, Any] = {
    "modulator": "LerpModulator",
    "init_args": {},
    "backbone": "google-t5/t5-small",
    "backbone_revision": "df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
    "backbone_sha256": None,
    "layers": [0, 1],
    "parameters": 2_088_966,
    "geometry": {"kind": "wordnet", "n_anchors": 8402, "alignment_cosine": 0.41},
}
REPORT: dict[str, Any] = {
    "run": {
        "steps": 2690,
        "epochs": 10,
        "seed": 42,
        "outcome": "finished",
        "command": ["train.py", "fit", "--output", "/home/somebody/runs/a"],
        "metrics": {
            "val/loss": {"first": 5.25, "last": 4.5},
            "val/exact_match": {"last": 0.01},
            "relational/pearson": {"first": 0.25, "last": 0.3},
            "relational/pearson_lift": {"last": 0.05},
        },
    },
    "data": {
        "wordnet": "3.0",
        "nltk_data": None,
        "entries": 9362,
        "held_out_entries": 936,
        "synsets": 8402,
    },
    "environment": {"versions": {"python": "3.11.7", "torch": "2.13.0", "peft": None}},
    "alpha": {"layers": [0, 1], "experts": ["lerp"], "initial": [[0.01], [0.01]], "final": [[0.02], [0.03]]},
    "relational": {
        "baseline": {"original": {"pearson": 0.25, "held_out/pearson": 0.2}, "random": {"pearson": -0.04}},
        "last": {
            "pearson": 0.3,
            "pearson_lift": 0.05,
            "pairs": 35_292_601.0,
            "held_out/pearson": 0.19,
            "held_out/pearson_lift": -0.01,
            "held_out/pairs": 1000.0,
            "preservation": 0.9,
        },
        "interval": {"all": [0.04, 0.06], "held_out": [-0.03, 0.01]},
    },
    "pentachoron": {"base": {"cv": 0.5, "z": 71.0}, "last": {"cv": 0.51, "z": 72.0, "reference": 0.5}},
}
CONTROLS: dict[str, Any] = {
    "controls": {
        "shuffled": {
            "parameters": 2_088_966,
            "seeds": [0, 1],
            "pearson_lift": {"all": {"mean": 0.045, "interval": [0.04, 0.05]}, "held_out": None},
        }
    },
    "verdicts": ["lerp − shuffled on all pairs: +0.0050: no larger than this control"],
}


def test_a_test_part_and_parts_of_speech_are_named() -> None:
    last = {"validation/pairs": 900.0, "held_out/nouns/pearson": 0.31, "held_out/nouns/pearson_lift": 0.11}
    report = REPORT | {
        "run": REPORT["run"]
        | {
            "monitor": "relational/validation/pearson_lift",
            "metrics": {"relational/held_out/pearson_lift": {"last": -0.01}},
        },
        "data": REPORT["data"] | {"validation_entries": 468, "test_entries": 468},
        "relational": REPORT["relational"] | {"last": REPORT["relational"]["last"] | last},
    }
    report["relational"]["interval"] = {"held_out/nouns": [0.05, 0.17]}
    card = model_card(CONFIG, report, CONTROLS)
    assert [result.metric_name for result in ModelCard(card).data.eval_results] == ["Pearson lift, test × test"]
    assert "| lift, all pairs | test × test |" in card
    assert "held-out × held-out" not in card
    assert "| test × test | 1,000 | 0.2000 | 0.1900 | −0.0100 |" in card
    assert "| nouns | – | – | 0.3100 | +0.1100 [+0.0500, +0.1700] |" in card
    assert "936 of them held out (468 for validation, 468 for the test); 8,402 synsets" in card
    assert "includes pairs with held-out synsets" not in card
    report["run"]["monitor"] = "relational/pearson_lift"
    assert "`relational/pearson_lift`, which the result was chosen by, includes pairs with held-out" in model_card(
        CONFIG, report
    )
    assert "By part of speech" not in model_card(CONFIG, REPORT)


def test_the_hubs_library_reads_it() -> None:
    card = ModelCard(model_card(CONFIG, REPORT, CONTROLS, "somebody/lerp-t5-small"))
    data = card.data.to_dict()
    assert data["base_model"] == "google-t5/t5-small"
    assert (data["library_name"], data["license"], data["language"]) == ("modulant", "apache-2.0", "en")
    assert card.data.model_name == "lerp-t5-small"
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"pearson": 0.3, "pearson_lift": 0.05, "loss": 4.5, "exact_match": 0.01}
    # what the hub's own check asks of a model-index, where there is no network to ask it
    for result in data["model-index"][0]["results"]:
        assert result["task"]["type"]
        assert result["dataset"].keys() >= {"type", "name"}
        assert all(isinstance(metric["value"], float) for metric in result["metrics"])


def test_it_says_what_was_measured() -> None:
    text = model_card(CONFIG, REPORT, CONTROLS)
    for said in (
        "| all pairs | 35,292,601 | 0.2500 | 0.3000 | +0.0500 [+0.0400, +0.0600] |",
        "| held-out × held-out | 1,000 | 0.2000 | 0.1900 | −0.0100 [−0.0300, +0.0100] |",
        "preservation (mean cosine with the backbone's own representation) 0.9000",
        "Pearson of a randomly initialised encoder −0.0400",
        "| validation loss, nats per token | 5.2500 | 4.5000 |",
        "| CV of pentachoron volumes | 0.5000 | 0.5100 |",
        "The CV's reference was 0.5000.",
        "| 1 | 0.0300 |",
        "All began at 0.0100.",
        "| shuffled | 2,088,966 | 2 | +0.0450 [+0.0400, +0.0500] | – |",
        "no larger than this control",
        "revision df1b051c49625cf57a3d0d8d3863ed4d13564fe4",
        "the archive that modulant ships, SHA-256 951b1f403383b512",
        "9,362 entries, 936 of them held out",
        "wordnet; anchors 8,402; mean cosine of the aligned points with the encoder's 0.4100",
        "2,690 steps, 10 epochs, seed 42",
        "Copyright 2006 by Princeton University",
        "circular",
    ):
        assert said in text, said
    assert "None were run" not in text
    assert "/home" not in text


def test_a_sample_of_the_pairs_is_called_one() -> None:
    report = json.loads(json.dumps(REPORT))
    assert "Intervals: a bootstrap over synsets. They" in model_card(CONFIG, report)
    report["relational"]["pairs"] = 50_000
    assert "bootstrap over synsets and over all pairs, where the lifts are a sample's" in model_card(CONFIG, report)


def test_it_says_what_was_not() -> None:
    report = json.loads(json.dumps(REPORT)) | {"relational": {}, "pentachoron": {}, "alpha": {}}
    report["data"]["nltk_data"] = "/somewhere"
    text = model_card(CONFIG | {"geometry": None}, report)
    assert "**a lift without its controls is no result**" in text
    for title in ("What it changed", "α per layer"):
        assert title not in text
    assert "SHA-256" not in text  # of an archive that was not used
    assert "/somewhere" not in text


@pytest.mark.parametrize("backbone", ["mini", "/home/somebody/t5"])
def test_a_backbone_that_is_not_on_the_hub(backbone: str) -> None:
    digests = {"backbone_revision": None, "backbone_sha256": {"model.safetensors": "ab" * 32}}
    text = model_card(CONFIG | digests | {"backbone": backbone})
    assert "base_model" not in yaml.safe_load(text.split("---")[1])
    assert "/home" not in text
    assert "model.safetensors: SHA-256 abab" in text


def test_a_configuration_without_the_newer_keys() -> None:
    old = {"modulator": "FieldModulator", "backbone": "mini", "layers": [0], "init_args": {}}
    assert "# FieldModulator for mini" in model_card(old)


def test_under_the_names_of_the_hub() -> None:
    digests = {
        "backbone": "/home/somebody/t5",
        "backbone_revision": None,
        "backbone_sha256": {"model.safetensors": "ab"},
    }
    local = model_card(CONFIG | digests, REPORT, name="modulator")
    text = published(local, "me/mine", "/home/somebody/t5", "google-t5/t5-small")
    card = ModelCard(text)
    assert (card.data.base_model, card.data.model_name) == ("google-t5/t5-small", "mine")
    assert 'load_modulated("me/mine")' in text
    assert "# LerpModulator for google-t5/t5-small\n" in text
    assert "- Backbone: google-t5/t5-small (a local copy was trained on), a local folder; model.safetensors" in text
    assert "The backbone (google-t5/t5-small) has" in text
    assert published(text, "me/mine", "google-t5/t5-small") == text
