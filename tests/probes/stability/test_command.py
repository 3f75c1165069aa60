"""Sampled figures: each seed's against the metric itself and against SciPy, and what is said of their spread."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from scipy.stats import pearsonr, spearmanr
from torch import Tensor
from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

import probe
from modulant import metrics
from modulant.assets import MINI
from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_config
from modulant.geometry import pentachoron_cv
from modulant.metrics.functional.pairs import sampled_pairs
from modulators import LerpModulator, save_modulator
from probes.stability import sampling
from probes.stability.command import (
    RELATIONAL,
    add_arguments,
    as_page,
    measure_stability,
    reference_cv,
    sampled_figures,
    verdicts,
)
from probes.stability.sampling import sample_figures
from tests.runs import small_wordnet


def population(n: int, dim: int = 8) -> tuple[Tensor, npt.NDArray[np.uint8]]:
    """Points with equal ones and one of length zero among them, and distances with a synset that nothing joins."""
    points = torch.randn(n, dim, generator=torch.Generator().manual_seed(0)) + 0.4
    points[5], points[7] = 0, points[8]
    d = np.triu(np.random.default_rng(0).integers(1, 14, (n, n), dtype=np.uint8), 1)
    d[2, 3:] = 255
    return points, d + d.T


def test_each_seed_is_what_the_metric_gives_for_it() -> None:
    points, d = population(400)
    clouds = {"one": points, "other": points.roll(1, 0)}
    found = sample_figures(clouds, d, [0, 1, 2], pairs=20_000)
    for cloud, some in clouds.items():
        for row, seed in zip(found[cloud], (0, 1, 2), strict=True):
            metric = metrics.RelationalAlignment(d, np.zeros(400, dtype=bool), pairs=20_000, seed=seed)
            metric.update(some)
            expected = [float(metric.compute()[key]) for key in RELATIONAL]
            tolerances = [1e-7, 1e-5, 1e-7, 1e-7]  # Spearman of the metric shares ranks inside a bin
            assert (np.abs(row - expected) <= tolerances).all()


def test_each_seed_by_scipy() -> None:
    """Over several blocks of rows; ties and missing paths included."""
    n = 4000
    points, d = population(n)
    (row,) = sample_figures({"": points}, d, [9], pairs=30_000)[""]
    i, j = sampled_pairs(n, 30_000, 9)
    joined = d[i, j] != 255
    i, j = i[joined], j[joined]
    unit = points.double() / points.double().norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosine, similarity = (unit[i] * unit[j]).sum(1).numpy(), 1 / (1 + d[i, j].astype(float))
    expected = [
        pearsonr(cosine, similarity).statistic,
        spearmanr(cosine, similarity).statistic,
        cosine[similarity >= 0.25].mean() - cosine[similarity < 0.10].mean(),
        cosine.mean(),
    ]
    np.testing.assert_allclose(row, expected, atol=1e-7, rtol=0)


def test_groups_of_seeds_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    points, d = population(300)
    whole = sample_figures({"": points}, d, range(5), 1000)[""]
    monkeypatch.setattr(sampling, "_SAMPLED", 2000)  # two seeds at a time
    monkeypatch.setattr(sampling, "_BLOCK", 300 * 7)  # seven rows at a time
    # fp32 products of other shapes round otherwise
    np.testing.assert_allclose(sample_figures({"": points}, d, range(5), 1000)[""], whole, atol=1e-6, rtol=0)


def test_all_pairs_leave_no_spread() -> None:
    points, d = population(50)
    values = sample_figures({"": points}, d, range(3), 10**6)[""]
    assert (values == values[0]).all()


def test_constant_points_have_no_correlation() -> None:
    _, d = population(50)
    pearson, spearman, gradient, mean = sample_figures({"": torch.ones(50, 4)}, d, [0], 500)[""][0]
    assert np.isnan([pearson, spearman]).all()
    assert gradient == pytest.approx(0, abs=1e-6)
    assert mean == pytest.approx(1, abs=1e-6)


def test_draws_of_pentachora_are_those_of_the_seed() -> None:
    points, d = population(200)
    found = sampled_figures({"encoder": points}, d, seeds=4, pairs=500, simplices=60)["encoder"]
    expected = [float(pentachoron_cv(points, 60, seed)) for seed in range(4)]
    assert found["cv"].tolist() == expected
    assert np.mean(expected) == pytest.approx(reference_cv(points), abs=0.15)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a fit of LERP leaves it, over a tiny T5 and a WordNet of 200 entries."""
    folder = tmp_path_factory.mktemp("run")
    tokenizer, backbone = AutoTokenizer.from_pretrained(MINI), str(folder / "backbone")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_layers": 2}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    modulator = LerpModulator(stream_of(load_config(backbone)), initial_alpha=0.5)
    save_modulator(modulator, folder / "modulator", backbone, layers=[0, 1])
    data = {"backbone": backbone, "nltk_data": str(small_wordnet(folder / "wordnet"))}
    (folder / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": {}}, "data": {"init_args": data}}))
    return folder


def test_command_on_a_run(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--seeds", "6", "--pairs", "3000", "--simplices", "50", "--output", str(tmp_path)]
    assert probe.main(["stability", str(run), *options]) == 0
    page = (tmp_path / "stability.md").read_text()
    assert page in capsys.readouterr().out
    assert "order of the lift" in page
    assert (tmp_path / "stability.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "stability.json").read_text())
    assert list(found["figures"]) == ["modulated", "original", "lift"]
    for key in (*RELATIONAL, "cv"):
        modulated, original, lift = (found["figures"][cloud][key] for cloud in found["figures"])
        values = np.subtract(modulated["values"], original["values"])  # the same pairs: seed by seed
        np.testing.assert_allclose(lift["values"], values, atol=1e-15)
        assert lift["exact"] == pytest.approx(modulated["exact"] - original["exact"], abs=1e-15)
        assert lift["sd"] == pytest.approx(values.std(ddof=1), abs=1e-15)
        assert lift["min"] == values.min()
    pearson = found["figures"]["original"]["pearson"]
    assert pearson["mean"] == pytest.approx(pearson["exact"], abs=4 * pearson["sd"] / 6**0.5)


def test_more_pairs_than_there_are(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = ["--seeds", "2", "--pairs", "20000", "--simplices", "10"]
    found = measure_stability(parser.parse_args([str(run), *options]))
    assert "20,000 pairs were asked for and the population has 19,900" in capsys.readouterr().err
    assert "there is no noise to compare" in as_page(found)
    one = found["figures"]["original"]["pearson"]
    assert one["sd"] == 0
    assert one["mean"] == pytest.approx(one["exact"], abs=1e-7)


@pytest.mark.parametrize(
    ("lift", "said"), [(0.1, "no: the lift stands out"), (0.02, "unless both"), (0.001, "cannot tell it from nothing")]
)
def test_verdict(lift: float, said: str) -> None:
    one = {"sd": 0.01, "exact": 0.3}
    paired = {"sd": 0.001, "exact": lift}
    figures = {"modulated": one, "original": one, "lift": paired}
    lines = verdicts({"figures": {cloud: dict.fromkeys((*RELATIONAL, "cv"), what) for cloud, what in figures.items()}})
    assert len(lines) == 5
    assert all(said in line for line in lines)


def test_rounding_is_no_noise() -> None:
    """Every sample of all pairs is the population, summed in another order."""
    one, paired = {"sd": 2.3e-17, "exact": 0.3}, {"sd": 1.6e-17, "exact": 0.1}
    figures = {"modulated": one, "original": one, "lift": paired}
    lines = verdicts({"figures": {cloud: dict.fromkeys((*RELATIONAL, "cv"), what) for cloud, what in figures.items()}})
    assert all("there is no noise to compare" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--seeds", "1"], 2, "'1' must be an integer of at least 2"),
        (["--pairs", "many"], 2, "'many' must be an integer of at least 2"),
        ([], 2, "there is no folder /nowhere/at/all"),
    ],
)
def test_what_cannot_be_measured(words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["stability", "/nowhere/at/all", *words]) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
