"""Terrain of pretrained models: figures of their whole matrices, as an independent NumPy program measured them."""

import json
import os
from pathlib import Path

import pytest

import probe

pytestmark = [pytest.mark.weights, pytest.mark.timeout(600)]

EXACT = {
    "norm/mean": 1.0656, "norm/sd": 0.2291, "cosine/mean": 0.01806, "cosine/sd": 0.09165, "cosine_centred/sd": 0.08762,
    "squared_distance/mean": 2.3522, "squared_distance/cv": 0.2776, "spectrum/participation_ratio": 204.90,
    "spectrum/participation_ratio_uncentred": 198.02, "spectrum/top_share": 0.0202, "spectrum/entropy_rank": 275.66,
    "spectrum/dims_80": 197, "spectrum/dims_90": 264, "spectrum/dims_95": 308, "spectrum/dims_99": 356,
    "digits/r": -0.761, "categories/gap": 0.208,
}  # fmt: skip
SAMPLED = {
    "pentachoron/cv": 0.411, "pentachoron/cv_unit": 0.112, "pentachoron/cv_null_diagonal": 0.072,
    "pentachoron/cv_null_covariance": 0.098, "pentachoron/ratio_isotropic": 0.905,
    "pentachoron/ratio_diagonal": 0.924, "pentachoron/ratio_covariance": 0.934, "digits/p": 5e-5,
    "digits/adjacent_gap": 0.158, "letters/r": -0.156, "number_words/r": -0.622, "constant/0.29154": 0.936,
    "constant/0.29514": 0.937,
}  # fmt: skip


def test_minilm(tmp_path: Path) -> None:
    words = ["all-MiniLM-L6-v2", "--rows", "all", "--only", "vocabulary,pentachora,words,constants"]
    assert probe.main(["terrain", *words, "--output", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "report.json").read_text())["figures"]
    for name, value in EXACT.items():
        assert figures[name] == pytest.approx(value, rel=3e-3), name
    for name, value in SAMPLED.items():
        assert figures[name] == pytest.approx(value, abs=0.015), name


def test_smollm2(tmp_path: Path) -> None:
    words = [os.environ["TEST_WEIGHTS"], "--rows", "all", "--only", "vocabulary,pentachora,words"]
    assert probe.main(["terrain", *words, "--output", str(tmp_path)]) == 0
    figures = json.loads((tmp_path / "report.json").read_text())["figures"]
    exact = {
        "spectrum/participation_ratio": 70.1, "spectrum/participation_ratio_uncentred": 3.99, "digits/r": -0.773,
        "number_words/r": -0.623, "letters/r": -0.181, "spectrum/entropy_rank": 349,
    }  # fmt: skip
    for name, value in exact.items():
        assert figures[name] == pytest.approx(value, rel=4e-3), name
    assert figures["pentachoron/cv"] == pytest.approx(0.28, abs=0.015)
    assert figures["pentachoron/ratio_isotropic"] == pytest.approx(0.283, abs=0.015)
    assert figures["pentachoron/ratio_diagonal"] == pytest.approx(0.931, abs=0.015)
