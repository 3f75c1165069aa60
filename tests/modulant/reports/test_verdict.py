"""The first sentences of a page: a lift with its interval, its part of speech, and the controls that were run."""

from typing import Any

import pytest

from modulant.reports.run.controls import chart
from modulant.reports.run.verdict import _lift, _lift_in_words, _text, _text_in_words, in_words

REPORT: dict[str, Any] = {
    "relational": {
        "pairs": "all",
        "first": {"held_out/nouns/pearson": 0.2},
        "last": {"held_out/nouns/pearson": 0.3, "held_out/nouns/pearson_lift": 0.1, "held_out/nouns/pairs": 12.0},
        "baseline": {"original": {"held_out/nouns/pearson": 0.2}},
        "interval": {"held_out/nouns": [0.08, 0.12]},
    },
    "run": {"steps": 5, "outcome": "finished"},
}
CONTROLS: dict[str, Any] = {
    "treatment": "this run",
    "controls": {
        "this run": {"pearson_lift": {"held_out/nouns": {"mean": 0.1}}},
        "taxonomy_shuffled": {"pearson_lift": {"held_out/nouns": {"mean": -0.004}}},
        "lora_keep_0": {"pearson_lift": {"held_out/nouns": {"mean": 0.3}}, "front": "lora"},
    },
}


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        (None, "a lift; no control of it was run. Pearson"),
        (CONTROLS, "a lift; its controls: taxonomy_shuffled −0.0040. Pearson"),
    ],
)
def test_the_first_sentence_names_the_controls(controls: dict[str, Any] | None, said: str) -> None:
    sentence = _lift(REPORT, "held_out/nouns", controls)
    assert sentence.startswith("**+0.1000** [+0.0800, +0.1200]: ")
    assert said in sentence
    assert sentence.endswith("over 12 pairs, nouns alone, held-out × held-out.")


def test_the_chart_of_the_controls_counts_them() -> None:
    one, several = CONTROLS, {**CONTROLS, "controls": {**CONTROLS["controls"]}}
    several["controls"]["random"] = {"pearson_lift": {"held_out/nouns": {"mean": 0.02}}}
    titles = [found.title for controls in (one, several) if (found := chart(REPORT, controls)) is not None]
    said = "Lift on held-out nouns: this run +0.1000, "
    assert [title.removeprefix(said) for title in titles] == ["its control −0.0040", "its controls −0.0040 to +0.0200"]


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (2.0, "fewer than equal chances (3.500), token frequencies alone (2.600), xz (2.200). xz and"),
        (2.3, "fewer than equal chances (3.500), token frequencies alone (2.600); no fewer than xz (2.200). xz and"),
        (2.2, "no fewer than xz (2.200). xz and"),
    ],
)
def test_bits_per_byte_beside_what_the_text_costs_without_a_model(last: float, said: str) -> None:
    report = {
        "model": {"describe": {"references": {"uniform": 3.5, "unigram": 2.6, "xz": 2.2, "bz2": None}}},
        "run": {"steps": 5, "stage": "fit", "metrics": {"val/bits_per_byte": {"last": last, "last_step": 4}}},
    }
    sentence = _text(report)
    assert sentence.startswith(f"**{last:.4f} bits per byte** of the validation text: ")
    assert said in sentence


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([0.08, 0.12], "follows WordNet more closely than before**: on pairs of nouns that training has not used"),
        ([-0.02, 0.12], "did not change beyond chance**"),
        ([-0.12, -0.08], "follows WordNet less closely than before**"),
        (None, "has no interval, so nobody can tell this from chance**"),
    ],
)
def test_the_verdict_says_no_more_than_the_interval(ends: list[float] | None, said: str) -> None:
    relational = REPORT["relational"] | {"interval": {"held_out/nouns": ends}}
    sentence = _lift_in_words(REPORT | {"relational": relational}, "held_out/nouns")
    assert said in sentence
    assert "went from 0.200 to 0.300 (a lift of +0.100" in sentence


@pytest.mark.parametrize(
    ("last", "said"),
    [
        (2.0, "better than xz and bz2 would pack it**: 2.00 bits per byte"),
        (2.25, "better than bz2 would pack it but no better than xz would pack it**"),
        (2.5, "no better than xz and bz2 would pack it**"),
    ],
)
def test_the_verdict_of_a_language_model_is_against_compressors(last: float, said: str) -> None:
    figures = {"first": 3.4, "first_step": 0, "last": last, "last_step": 4}
    report = {
        "model": {"describe": {"references": {"uniform": 3.5, "unigram": 2.6, "xz": 2.2, "bz2": 2.4}}},
        "run": {"steps": 5, "stage": "fit", "metrics": {"val/bits_per_byte": figures}},
    }
    sentence = _text_in_words(report)
    assert said in sentence
    assert "(3.40 at the start), equal chances 3.50, token frequencies alone 2.60, xz 2.20, bz2 2.40." in sentence


ENDED = REPORT | {
    "loss": {},
    "stop": {"reason": "boom"},
    "time": {"total_s": 1.0},
    "model": {"describe": {}},
    "run": {"stage": "fit", "outcome": "finished", "steps": 1, "epochs": 0, "metrics": {}},
}


@pytest.mark.parametrize(("ends", "asked"), [([0.08, 0.12], True), ([-0.02, 0.12], False)])
def test_who_moved_something_is_asked_for_controls(ends: list[float], asked: bool) -> None:
    relational = REPORT["relational"] | {"interval": {"held_out/nouns": ends}}
    said = in_words(ENDED | {"relational": relational})
    assert any("no control was run" in sentence for sentence in said) == asked
    assert said[-1].startswith("Ended after 1 step")


def test_what_was_not_measured_has_no_verdict() -> None:
    report = ENDED | {"relational": {}, "run": ENDED["run"] | {"outcome": "failed"}}
    ending, verdict = in_words(report)
    assert ending.startswith("**Failed** after 1 step")
    assert verdict.startswith("**No verdict**")
