"""Table and figures from run folders made up here, whose replicates are known."""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.image import imread

from probes.controls import figure as figures
from probes.controls import table
from probes.controls.fronts import with_fronts
from probes.controls.measure import POPULATIONS, Measured, difference, measure, paired, percentiles, summarise
from probes.controls.plan import Run
from probes.controls.settings import Control

REPLICATES = 400
RNG_SEED = 7
# Both sides are float64 means and percentiles of the same numbers.
TOLERANCE = 1e-12


def original() -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(RNG_SEED).normal(0.28, 0.01, (REPLICATES, 4))


def write_run(
    output: Path, control: str, seed: int, lift: float, noise: float = 0.002, alpha: float = 0.02, parts: int = 2
) -> Run:
    """A run whose lift is `lift` on all populations, with replicates around it, of data in two or three parts."""
    run = Run(Control(control), seed, output / control / f"seed_{seed}")
    run.folder.mkdir(parents=True)
    rng = np.random.default_rng([seed, len(control)])
    modulated = original() + lift + rng.normal(0, noise, (REPLICATES, 4))
    nouns_last = {"further": np.array(["verbs", "held_out/verbs", "held_out/nouns"])}
    for kind, first in (("original", original()), ("modulated", modulated)):
        nouns_last |= {kind: first, f"further_{kind}": first[:, [0, 3, 2]]}
    np.savez(run.folder / "relational_bootstrap.npz", **nouns_last)  # type: ignore[arg-type]
    figures = {
        "val/loss": 5.0 - lift,
        "val/token_accuracy": 0.38,
        "relational/pearson_lift": lift,
        **{f"relational/{name}/pearson_lift": lift for name in POPULATIONS[1:]},
        "relational/spearman_lift": lift / 2,
        "relational/gradient": 0.24,
        "relational/preservation": 0.99,
        "pentachoron/cv": 0.3,
        "pentachoron/z": 60.0,
        "relational/original/pearson": 0.28,
    }
    report = {
        "run": {"stage": "fit", "outcome": "finished", "metrics": {k: {"last": v} for k, v in figures.items()}},
        "model": {"parameters": {"trainable": 38552}},
        "alpha": {"final": [[alpha, alpha], [alpha, None]]},
        "pentachoron": {"base": {"cv": 0.31}},
        "relational": {"last": {"validation/pairs": 10.0} if parts == 3 else {}},
    }
    (run.folder / "report.json").write_text(json.dumps(report))
    return run


def summary_of(runs: list[Run], treatment: str = "lerp") -> dict[str, Any]:
    found = [measured for run in runs if (measured := measure(run)) is not None]
    return with_fronts(summarise(found, treatment, {"pearson": 0.28, "pentachoron_cv": 0.31}), found)


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    lifts = {"lerp": (0.030, 0.034), "shuffled": (0.010, 0.012), "random": (0.028, 0.036), "lora": (0.05, 0.06)}
    return [write_run(tmp_path, name, seed, lift) for name, own in lifts.items() for seed, lift in enumerate(own)]


def test_intervals_are_numpys(runs: list[Run]) -> None:
    summary = summary_of(runs)
    arrays = {}
    for run in runs:
        with np.load(run.folder / "relational_bootstrap.npz") as file:
            first, further = (file[f"{kind}modulated"] - file[f"{kind}original"] for kind in ("", "further_"))
            arrays[run.control.name, run.seed] = np.hstack([first, further[:, [2, 1]]])
    for i, population in enumerate(POPULATIONS):
        for name in ("lerp", "shuffled"):
            mean = (arrays[name, 0][:, i] + arrays[name, 1][:, i]) / 2
            lift = summary["controls"][name]["pearson_lift"][population]
            np.testing.assert_allclose(lift["interval"], np.percentile(mean, (2.5, 97.5)), rtol=0, atol=TOLERANCE)
        apart = np.mean([arrays["lerp", s][:, i] - arrays["shuffled", s][:, i] for s in (0, 1)], axis=0)
        found = summary["controls"]["shuffled"]["difference"][population]
        np.testing.assert_allclose(found["interval"], np.percentile(apart, (2.5, 97.5)), rtol=0, atol=TOLERANCE)
        assert found["mean"] == pytest.approx(0.032 - 0.011, abs=TOLERANCE)
        assert (found["min"], found["max"]) == pytest.approx((0.020, 0.022), abs=TOLERANCE)
    assert summary["controls"]["lerp"]["alpha"]["mean"] == pytest.approx(0.02, abs=TOLERANCE)
    assert "difference" not in summary["controls"]["lerp"]


def test_pairing_makes_an_interval_narrow() -> None:
    """What two runs have in common on a resample is no part of their difference."""
    common = np.random.default_rng(0).normal(0, 0.05, (REPLICATES, 4))
    lifts = {"pearson_lift/all": 0.02}
    a = Measured("a", 0, 1, lifts, original(), original() + common + 0.01)
    b = Measured("b", 0, 1, lifts, original(), original() + common)
    found = difference([a], [b], 0)
    assert found is not None
    assert found["interval"] == pytest.approx((0.01, 0.01), abs=TOLERANCE)


def test_a_difference_is_over_common_seeds(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "lerp", seed, lift) for seed, lift in enumerate((0.01, 0.02, 0.9))]
    runs += [write_run(tmp_path, "lora", 1, 0.005), write_run(tmp_path, "random", 7, 0.005)]
    controls = summary_of(runs)["controls"]
    assert controls["lora"]["difference"]["all"]["seeds"] == {1: pytest.approx(0.015)}
    assert controls["random"]["difference"]["all"] is None
    lines = table.verdicts(summary_of(runs))
    assert "lerp − random: no seed that both have" in lines


def test_resamples_that_differ_give_no_interval(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, "lerp", 0, 0.03), write_run(tmp_path, "lora", 0, 0.01)]
    assert summary_of(runs)["paired"]
    other = np.random.default_rng(8).normal(0.28, 0.01, (REPLICATES, 4))
    np.savez(runs[1].folder / "relational_bootstrap.npz", original=other, modulated=other)
    summary = summary_of(runs)
    assert not summary["paired"]
    assert summary["controls"]["lora"]["difference"]["all"]["interval"] is None
    assert "do not share them" in table.markdown(summary)
    assert paired([])


def test_replicates_that_are_no_numbers() -> None:
    values = np.arange(100.0)
    with_gaps = np.where(values < 30, np.nan, values)
    assert percentiles(with_gaps) == pytest.approx(tuple(np.percentile(values[30:], (2.5, 97.5))))
    assert percentiles(np.where(values < 60, np.nan, values)) is None
    assert percentiles(np.full(5, np.nan)) is None


@pytest.mark.parametrize("damage", ["missing", "cut short", "other shape"])
def test_a_run_without_its_bootstrap_has_no_interval(tmp_path: Path, damage: str) -> None:
    run = write_run(tmp_path, "lerp", 0, 0.03)
    file = run.folder / "relational_bootstrap.npz"
    if damage == "missing":
        file.unlink()
    elif damage == "cut short":
        file.write_bytes(file.read_bytes()[:100])
    else:
        np.savez(file, original=np.zeros((3, 2)), modulated=np.zeros((3, 2)))
    summary = summary_of([run])
    lift = summary["controls"]["lerp"]["pearson_lift"]["all"]
    assert (lift["mean"], lift["interval"]) == (0.03, None)
    assert "No interval for lerp" in table.markdown(summary)


def test_the_verdicts(runs: list[Run]) -> None:
    lines = {line.split(":")[0]: line for line in table.verdicts(summary_of(runs))}
    assert lines["lerp on held-out"].endswith(": a lift")
    assert lines["lerp − shuffled on held-out"].startswith("lerp − shuffled on held-out: +0.0210 [+0.017")
    assert lines["lerp − shuffled on held-out"].endswith(": larger than this control")
    assert lines["lerp − random on all pairs"].endswith(": not distinguishable from this control")
    assert lines["lerp − lora on held-out"].endswith(": smaller than this control")


@pytest.mark.parametrize(
    ("spread", "said"),
    [
        (
            {"interval": (0.1, 0.2), "min": -0.1, "max": 0.3},
            "larger than this control in the mean, but not with every seed",
        ),
        ({"interval": (-0.2, -0.1), "min": -0.3, "max": -0.1}, "smaller than this control"),
        ({"interval": (-0.2, 0.1), "min": -0.3, "max": 0.3}, "not distinguishable from this control"),
        ({"interval": None, "min": 0.1, "max": 0.2}, "no interval, so nothing is said"),
    ],
)
def test_a_verdict_follows_the_interval(spread: Mapping[str, Any], said: str) -> None:
    assert table.against_control({"mean": 0.0, "seeds": {0: 0.0, 1: 0.0}, **spread}) == said


def test_the_page(runs: list[Run]) -> None:
    page = table.markdown(summary_of(runs), ["lora seed 2: x.log"], ["controls.png"])
    finding, controls, figure, reading, heading = page.split("\n\n")[1:6]
    assert finding.startswith("**lerp moves the encoder's agreement with WordNet by +0.0")
    assert "A control is the same training with what is claimed to matter taken away" in controls
    assert (figure[:2], reading[:17]) == ("![", "How to read this:")
    assert heading == "## Each comparison in words"
    row = next(line for line in page.splitlines() if line.startswith("| shuffled"))
    assert "38,552" in row
    assert "0, 1" in row
    assert "+0.0110 [+0.0" in row
    assert ", +0.0100 … +0.0120" in row
    assert "percentile bootstrap over synsets (400 replicates)" in page
    assert "It does not cover the chance in training" in page
    assert "| original encoder" in page
    assert "- lora seed 2: x.log" in page
    assert "nan" not in page.lower()


def test_a_test_part_is_named_by_table_verdicts_and_figures(tmp_path: Path) -> None:
    """As the runs' own reports do; where not all runs have one, their common name is held-out."""
    runs = [write_run(tmp_path, f"alpha_{a}", 0, a, alpha=a, parts=3) for a in (0.01, 0.02)]
    runs += [write_run(tmp_path, "lerp", 0, 0.03, parts=3)]
    summary = summary_of(runs) | {"original": {"pearson": 0.28, "pearson_held_out": 0.27}}
    page, forest, sweep = table.markdown(summary), figures.forest(summary), figures.sweep(summary)
    assert "held-out" not in page
    for said in (" test × test |", " test nouns |", "- lerp on test nouns: ", "- lerp on test: ", "0.2700 on test."):
        assert said in page
    assert forest is not None
    assert sweep is not None
    for name, figure in (("forest.png", forest), ("sweep.png", sweep)):
        figures.save(figure, tmp_path / name)
        drawn = "".join(ElementTree.parse(tmp_path / name.replace("png", "svg")).getroot().itertext())
        assert "test × test" in drawn
        assert "held-out" not in drawn
    assert "the largest test lift" in sweep._suptitle.get_text()  # type: ignore[attr-defined]
    assert " held-out × held-out |" in table.markdown(summary_of([*runs, write_run(tmp_path, "lora", 0, 0.01)]))


def test_the_csv(runs: list[Run]) -> None:
    rows = {row["control"]: row for row in csv.DictReader(io.StringIO(table.as_csv(summary_of(runs))))}
    assert list(rows) == ["lerp", "shuffled", "random", "lora"]
    assert float(rows["shuffled"]["difference/held_out"]) == pytest.approx(0.021)
    assert float(rows["shuffled"]["pearson_lift/all_low"]) < 0.011 < float(rows["shuffled"]["pearson_lift/all_high"])
    assert rows["lerp"]["difference/all"] == ""


def test_nothing_has_ended(tmp_path: Path) -> None:
    run = Run(Control("lerp"), 0, tmp_path / "lerp" / "seed_0")
    assert measure(run) is None
    summary = with_fronts(summarise([], "lerp", {}), [])
    assert "No run has ended yet" in table.markdown(summary)
    assert figures.forest(summary) is None
    assert figures.front(summary) is None
    assert figures.sweep(summary) is None


def test_a_table_without_the_treatment(tmp_path: Path) -> None:
    summary = summary_of([write_run(tmp_path, "lora", 0, 0.01)])
    assert table.verdicts(summary) == ["no run of lerp has ended, so nothing can be compared with it"]
    assert figures.forest(summary) is not None


def test_the_forest_is_drawn(runs: list[Run], tmp_path: Path) -> None:
    figure = figures.forest(summary_of(runs))
    assert figure is not None
    assert len(figure.axes) == 4
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["lerp", "shuffled", "random", "lora"]
    figures.save(figure, tmp_path / "controls.png")
    assert np.ptp(imread(tmp_path / "controls.png")) > 0.5
    text = "".join(ElementTree.parse(tmp_path / "controls.svg").getroot().itertext())
    for word in ("lerp +0.0320", "held-out × held-out", "held-out nouns", "shuffled"):
        assert word in text
    assert not list(tmp_path.glob(".*.tmp"))


def test_the_sweep_is_drawn(runs: list[Run], tmp_path: Path) -> None:
    assert figures.sweep(summary_of(runs)) is None  # nothing was fixed
    runs += [
        write_run(tmp_path, f"alpha_{a}", 0, lift, alpha=a) for a, lift in ((0.01, 0.01), (0.1, 0.05), (0.5, -0.1))
    ]
    figure = figures.sweep(summary_of(runs))
    assert figure is not None
    figures.save(figure, tmp_path / "alphas.png")
    title = figure._suptitle  # type: ignore[attr-defined]
    assert title.get_text() == "lerp at fixed α: the largest held-out lift, +0.0500, is at 0.1 (★: α learned)"
