"""Vocabularies of pretrained models beside each other: figures as an independent NumPy program measured them.

Its division into fitted and held-out words was another one, which moves a figure by about its interval.
"""

import json
import os
from pathlib import Path

import pytest

import probe
from probes.scales.page import SHARED, beyond

pytestmark = [pytest.mark.weights, pytest.mark.timeout(900)]

NAMES = (
    "rotation/cosine", "ridge/r2", "cka/unbiased", "cka/biased", "cka/biased_null", "rsa/spearman",
    "neighbours/overlap",
)  # fmt: skip


@pytest.mark.parametrize(
    ("small", "large", "words", "expected"),
    [
        ("mini", "all-MiniLM-L6-v2", 6833, (0.215, 0.208, 0.246, 0.278, 0.049, 0.240, 0.080)),
        ("mini", "", 7534, (0.221, 0.193, 0.265, 0.280, 0.020, 0.248, 0.075)),
        ("all-MiniLM-L6-v2", "", 13890, (0.426, 0.399, 0.213, 0.248, 0.048, 0.220, 0.265)),
    ],
)
def test_two_models(small: str, large: str, words: int, expected: tuple[float, ...], tmp_path: Path) -> None:
    large = large or os.environ["TEST_WEIGHTS"]
    options = ["--only", "fits,pairs", "--nulls", "5", "--replicates", "100", "--output", str(tmp_path)]
    assert probe.main(["scales", small, large, *options]) == 0
    found = json.loads((tmp_path / "report.json").read_text())
    figures = found["figures"]
    assert figures["words/shared"] == words
    for name, value in zip(NAMES, expected, strict=True):
        assert figures[name] == pytest.approx(value, abs=0.003 if name == "cka/biased_null" else 0.03), name
    assert figures["rotation/cosine_null"] == pytest.approx(0, abs=0.03)
    assert all(beyond(found, name) for name in SHARED if name in figures)
