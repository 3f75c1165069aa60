"""The first sentences of a page: a lift with its interval, its part of speech, and the controls that were run."""

from typing import Any

import pytest

from modulant.reports.verdict import _lift, _text

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
