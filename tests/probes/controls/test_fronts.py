"""Fronts over λ_keep: interpolation against NumPy, differences that are known, and where nothing can be compared."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from probes.controls import figure as figures
from probes.controls import table
from probes.controls.fronts import difference, method_of, weights, with_fronts
from probes.controls.measure import POPULATIONS, Measured, measured, summarise

REPLICATES = 300
COLUMNS = len(POPULATIONS)
# Both sides are float64 sums of the same numbers.
TOLERANCE = 1e-12
COMMON = np.random.default_rng(0).normal(0, 0.05, (REPLICATES, COLUMNS))  # what the resamples share


def run(
    row: str, seed: int, keep: float, preservation: float, lift: float, noise: float | NDArray[np.float64] = 0.0
) -> Measured:
    """A run with the same lift on every population, and replicates around it."""
    original = np.random.default_rng(1).normal(0.28, 0.01, (REPLICATES, COLUMNS))
    found = {f"pearson_lift/{name}": lift for name in POPULATIONS}
    found |= {"keep": keep, "preservation": preservation}
    return Measured(row, seed, 10, found, original, original + lift + COMMON + noise)


def front_of(
    method: str, places: Mapping[float, float], lift: Callable[[float], float], seeds: Sequence[int] = (0, 1)
) -> list[Measured]:
    """Runs of a method, by λ_keep and its preservation; the second seed keeps more, and lifts more, by 0.002."""
    return [
        run(method if keep == 0.8 else f"{method}_keep_{keep:g}", seed, keep, p + 0.002 * seed, lift(p) + 0.002 * seed)
        for keep, p in places.items()
        for seed in seeds
    ]


FIELD = {0.8: 0.95, 0.0: 0.90, 2.0: 0.97}
LORA = {0.8: 0.92, 0.0: 0.80, 2.0: 0.955, 4.0: 0.96}


def summary_of(runs: Sequence[Measured]) -> dict[str, Any]:
    return with_fronts(summarise(runs, "field", {}), runs)


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """Two fronts on parallel lines, 0.05 apart, and a control without a front."""
    runs = front_of("field", FIELD, lambda p: 0.50 - 0.4 * p) + front_of("lora", LORA, lambda p: 0.45 - 0.4 * p)
    return summary_of([*runs, run("taxonomy_shuffled", 0, 0.8, 0.99, 0.0)])


@pytest.mark.parametrize("places", [[0.9, 0.7, 0.95, 0.8], [0.1, 0.2], [3.0, 1.0, 2.0]])
def test_weights_are_of_the_two_neighbours(places: list[float]) -> None:
    rng = np.random.default_rng(2)
    heights = rng.normal(size=len(places))
    order = np.argsort(places)
    for at in rng.uniform(min(places), max(places), 20):
        found = weights(at, places)
        assert np.count_nonzero(found) <= 2
        assert found.sum() == pytest.approx(1, abs=TOLERANCE)
        assert found @ places == pytest.approx(at, abs=TOLERANCE)
        expected = np.interp(at, np.array(places)[order], heights[order])
        assert found @ heights == pytest.approx(expected, abs=TOLERANCE)


def test_parallel_fronts_differ_by_the_same_everywhere(summary: dict[str, Any]) -> None:
    """Between parallel lines, with what the resamples share in both, difference and interval are the distance."""
    found = summary["fronts"]["differences"]["lora"]
    assert found["seeds"] == [0, 1]
    assert [point["row"] for point in found["points"]] == ["field_keep_0", "field"]  # 0.971 is beyond LoRA's front
    assert [point["preservation"] for point in found["points"]] == pytest.approx([0.901, 0.951], abs=TOLERANCE)
    for point in found["points"]:
        for name in ("held_out/nouns", "held_out"):
            assert point[name]["mean"] == pytest.approx(0.05, abs=TOLERANCE)
            assert point[name]["seeds"] == pytest.approx({0: 0.05, 1: 0.05}, abs=TOLERANCE)
            assert point[name]["interval"] == pytest.approx((0.05, 0.05), abs=TOLERANCE)


def test_replicates_are_interpolated_one_by_one() -> None:
    rng = np.random.default_rng(3)
    ours = {"a": [run("a", 0, 1, 0.9, 0.1, rng.normal(0, 0.1, (REPLICATES, COLUMNS)))]}
    places = (0.85, 0.88, 0.93)
    theirs = {str(p): [run(str(p), 0, 1, p, 0.05 / p, rng.normal(0, 0.1, (REPLICATES, COLUMNS)))] for p in places}
    (point,) = difference(ours, theirs)["points"]
    for name in ("held_out/nouns", "held_out"):
        column = POPULATIONS.index(name)
        lifts = [lift[:, column] for (own,) in (*ours.values(), *theirs.values()) if (lift := own.lift) is not None]
        apart = [lifts[0][b] - np.interp(0.9, places, [one[b] for one in lifts[1:]]) for b in range(REPLICATES)]
        assert point[name]["interval"] == pytest.approx(tuple(np.percentile(apart, (2.5, 97.5))), abs=TOLERANCE)
        assert point[name]["mean"] == pytest.approx(0.1 - np.interp(0.9, places, [0.05 / p for p in places]))
    (unpaired,) = difference(ours, theirs, are_paired=False)["points"]
    assert unpaired["held_out"]["interval"] is None


def test_where_our_points_enclose_theirs_theirs_are_taken() -> None:
    ours = {str(p): [run(str(p), 0, 1, p, 2 * p)] for p in (0.8, 1.0)}
    theirs = {f"their {p}": [run(f"their {p}", 0, 1, p, p)] for p in (0.85, 0.9)}
    points = difference(ours, theirs)["points"]
    assert [point["row"] for point in points] == ["their 0.85", "their 0.9"]
    assert [point["held_out"]["mean"] for point in points] == pytest.approx([0.85, 0.9], abs=TOLERANCE)


def test_fronts_that_share_nothing_are_not_compared() -> None:
    """Without a common preservation, or a common seed, there is a sentence that says so."""
    field = front_of("field", FIELD, lambda p: 1 - p)
    apart = front_of("lora", {0.8: 0.6, 2.0: 0.7}, lambda p: 1 - p)
    other_seeds = front_of("ia3", FIELD, lambda p: 1 - p, seeds=(7,))
    summary = summary_of([*field, *apart, *other_seeds])
    assert summary["fronts"]["differences"] == {
        "lora": {"seeds": [0, 1], "points": []},
        "ia3": {"seeds": [], "points": []},
    }
    lines = table.verdicts(summary)
    assert "field − lora at equal preservation: the fronts share no preservation" in lines
    assert "field − ia3 at equal preservation: no seed that all of their points have" in lines
    assert "equal preservation\n" not in table.markdown(summary)


def test_only_seeds_that_all_points_have() -> None:
    runs = [*front_of("field", FIELD, lambda p: 0.5 - 0.4 * p, seeds=(0, 1, 2)),
            *front_of("lora", LORA, lambda p: 0.45 - 0.4 * p)]  # fmt: skip
    late = next(one for one in runs if one.control == "lora_keep_4" and one.seed == 1)
    found = summary_of([one for one in runs if one is not late])["fronts"]["differences"]["lora"]
    assert found["seeds"] == [0]
    assert found["points"][0]["preservation"] == pytest.approx(0.9)


def test_what_was_not_measured_has_no_difference() -> None:
    runs = front_of("field", FIELD, lambda p: 1 - p) + front_of("lora", LORA, lambda p: 1 - p)
    all_but_nouns = {k: v for k, v in runs[0].figures.items() if k != "pearson_lift/held_out/nouns"}
    summary = summary_of([replace(runs[0], figures=all_but_nouns), *runs[1:]])
    point = summary["fronts"]["differences"]["lora"]["points"][-1]
    assert (point["held_out/nouns"], point["held_out"]["mean"]) == (None, pytest.approx(0, abs=TOLERANCE))
    assert "–" in table.markdown(summary)


def test_rows_of_a_front_are_listed_there_alone(summary: dict[str, Any]) -> None:
    assert summary["fronts"]["methods"] == {
        "field": ["field_keep_0", "field", "field_keep_2"],
        "lora": ["lora_keep_0", "lora", "lora_keep_2", "lora_keep_4"],
    }
    page = table.markdown(summary)
    lifts, fronts = page.split("## Fronts")
    assert "_keep_" not in lifts
    row = next(line for line in fronts.splitlines() if line.startswith("| lora ") and "4" in line.split("|")[2])
    assert "0.9610, 0.9600 … 0.9620" in row
    assert "+0.0670" in row
    forest = figures.forest(summary)
    assert forest is not None
    assert [label.get_text() for label in forest.axes[0].get_yticklabels()] == ["field", "lora", "taxonomy_shuffled"]
    rows = {row["control"]: row for row in csv.DictReader(io.StringIO(table.as_csv(summary)))}
    assert [rows[name]["keep"] for name in ("field", "lora_keep_0")] == ["0.8", "0.0"]
    assert rows["lora"]["difference/held_out"]
    assert not rows["lora_keep_0"]["difference/held_out"]


def test_the_verdicts_are_by_what_is_found(summary: dict[str, Any]) -> None:
    lines = [line for line in table.verdicts(summary) if "equal" in line]
    values = "+0.0500 [+0.0500, +0.0500] at 0.901, +0.0500 [+0.0500, +0.0500] at 0.951"
    assert lines == [
        f"field − lora on {where} at equal preservation: {values}: larger than this control"
        for where in ("held-out nouns", "held-out")
    ]


def test_one_point_is_no_front() -> None:
    """A row at another λ_keep stays in the table, and is still not compared with the treatment."""
    runs = [run("field", 0, 0.8, 0.9, 0.1), run("lora_keep_3", 0, 3, 0.9, 0.1), run("ia3", 0, 0.8, 0.9, 0.1)]
    runs.append(run("ia3_keep_0.8", 0, 0.8, 0.9, 0.1))  # the same λ_keep again
    summary = summary_of(runs)
    assert summary["fronts"] == {"methods": {}, "sweeps": {}, "differences": {}}
    assert "| lora_keep_3" in table.markdown(summary)
    assert not any("keep" in line for line in table.verdicts(summary))
    assert figures.front(summary) is None


def test_the_treatment_may_be_named_like_a_point() -> None:
    assert method_of("mine_keep_2", 2.0, "mine_keep_2") == "mine_keep_2"
    assert method_of("mine_keep_2_keep_0", 0.0, "mine_keep_2") == "mine_keep_2"
    assert method_of("lora", None, "field") == "lora"


def title_of(figure: Figure) -> str:
    return str(figure._suptitle.get_text())  # type: ignore[attr-defined]


def test_the_fronts_are_drawn(summary: dict[str, Any], tmp_path: Path) -> None:
    figure = figures.front(summary)
    assert figure is not None
    assert len(figure.axes) == 2  # no ratings were measured
    # LoRA at 0.951, between 0.921 and 0.956, on its line
    assert title_of(figure) == "Held-out nouns at preservation 0.951: field +0.121, lora +0.071"
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "0.8", "2", "0", "0.8", "2", "4"]
    curve = figure.axes[1].lines[0]
    x, y = (np.asarray(data, np.float64) for data in curve.get_data())
    assert x[:: curve.get_markevery()] == pytest.approx([0.901, 0.951, 0.971])
    # straight between points, on a scale that is not: the fronts' difference is taken so
    assert y == pytest.approx(np.interp(x, [0.901, 0.951, 0.971], y[:: curve.get_markevery()]), abs=TOLERANCE)
    assert figure.axes[0].get_xscale() == "function"
    figures.save(figure, tmp_path / "front.png")
    assert (tmp_path / "front.svg").stat().st_size > 1000


def swept(lengths: Sequence[int] = (), alphas: Sequence[float] = ()) -> list[Measured]:
    """The treatment, trained for 15 epochs, and its sweeps: longer and with more α it lifts more and keeps less."""
    field = run("field", 0, 0.8, 0.95, 0.12)
    runs = [replace(field, figures={**field.figures, "epochs": 15, "alpha": 0.03})]
    for length in lengths:
        one = run(f"epochs_{length}", 0, 0.8, 0.98 - 0.002 * length, 0.008 * length)
        runs.append(replace(one, figures={**one.figures, "epochs": length, "alpha": 0.03}))
    for alpha in alphas:
        one = run("fixed_alpha" if alpha == 0.29154 else f"alpha_{alpha:g}", 0, 0.8, 0.98 - alpha, 0.05 + alpha)
        runs.append(replace(one, figures={**one.figures, "epochs": 15, "alpha": alpha, "validation_loss": 5.0}))
    return runs


def test_the_treatment_is_swept_over_epochs_and_alpha() -> None:
    """By their values; the treatment is a point of the former, and no second row at its length."""
    summary = summary_of(swept([30, 5, 15], [0.29154, 0.1]))
    assert summary["fronts"]["methods"] == {}
    assert {name: list(rows.items()) for name, rows in summary["fronts"]["sweeps"].items()} == {
        "epochs": [("epochs_5", 5), ("field", 15), ("epochs_30", 30)],
        "alpha": [("alpha_0.1", 0.1), ("fixed_alpha", 0.29154)],
    }
    lifts, points = table.markdown(summary).split("## Over epochs and fixed α")
    assert "| alpha_0.1" in lifts
    assert "| epochs_5" not in lifts
    cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in points.splitlines() if line.startswith("| ")]
    assert cells[2:7] == [
        ["epochs_5", "5 ep.", "0", "0.9700"], ["field", "15 ep.", "0", "0.9500"],
        ["epochs_30", "30 ep.", "0", "0.9200"],
        ["alpha_0.1", "α 0.1", "0", "0.8800"], ["fixed_alpha", "α 0.292", "0", "0.6885"],
    ]  # fmt: skip
    lines = "\n".join(table.verdicts(summary))
    assert "field − alpha_0.1 on held-out" in lines
    assert "epochs" not in lines
    rows = {row["control"]: row["epochs"] for row in csv.DictReader(io.StringIO(table.as_csv(summary)))}
    assert (rows["epochs_5"], rows["field"]) == ("5", "15")


@pytest.mark.parametrize(
    ("lengths", "alphas", "labels"),
    [
        ([], [0.1], None),
        ([5], [], ["field over epochs"]),
        ([], [0.05, 0.1], ["field over fixed α"]),
        ([5], [0.05, 0.1], ["field over epochs", "field over fixed α"]),
    ],
)
def test_a_sweep_has_two_points(lengths: list[int], alphas: list[float], labels: list[str] | None) -> None:
    figure = figures.front(summary_of(swept(lengths, alphas)))
    assert (None if figure is None else [text.get_text() for text in figure.legends[0].get_texts()]) == labels


def test_a_length_without_the_treatment_is_not_compared() -> None:
    summary = summary_of(swept([5])[1:])
    assert summary["fronts"]["sweeps"] == {}
    assert "| epochs_5" in table.markdown(summary)
    assert "front" not in summary["controls"]["epochs_5"]


def test_sweeps_are_drawn_beside_the_fronts(tmp_path: Path) -> None:
    runs = [*swept([5, 30], [0.05, 0.1]), run("field_keep_0", 0, 0.0, 0.9, 0.2), run("lora", 0, 0.8, 0.95, 0.11),
            run("lora_keep_0", 0, 0.0, 0.89, 0.2)]  # fmt: skip
    summary = summary_of(runs)
    assert list(summary["fronts"]["differences"]) == ["lora"]
    figure = figures.front(summary)
    assert figure is not None
    assert title_of(figure) == "Held-out nouns at preservation 0.950: field +0.120, lora +0.110"
    for axis in figure.axes:
        lines = {str(line.get_label()): line for line in axis.lines if not str(line.get_label()).startswith("_")}
        assert {name: line.get_linestyle() for name, line in lines.items()} == {
            "field": "-", "lora": "-", "field over epochs": "--", "field over fixed α": ":",
        }  # fmt: skip
        assert len({line.get_color() for line in lines.values()}) == 4
        x = np.asarray(lines["field over epochs"].get_xdata(), np.float64)
        assert x[:: lines["field over epochs"].get_markevery()] == pytest.approx([0.97, 0.95, 0.92])
        texts = [text.get_text() for text in axis.texts]
        assert texts == ["0", "0.8", "0", "0.8", "5 ep.", "15 ep.", "30 ep.", "α 0.05", "α 0.1"]
    figures.save(figure, tmp_path / "front.png")
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = [Text.get_window_extent(text) for text in axis.texts]
        assert not [i for i, one in enumerate(boxes) if one.count_overlaps(boxes[i + 1 :])]
        assert all(axis.bbox.fully_containsx(x) for box in boxes for x in box.intervalx)
    alone = figures.front(summary_of(swept([5, 30], [0.05, 0.1])))
    assert alone is not None
    assert title_of(alone) == (
        "Held-out nouns, field: +0.040 at 5 ep. to +0.240 at 30 ep.; +0.100 at α 0.05 to +0.150 at α 0.1"
    )


def test_ratings_have_panels_and_their_seeds_intervals() -> None:
    def rated(keep: float, seed: int) -> Measured:
        values = {
            "relational/preservation": 0.9 + 0.01 * keep,
            **{f"relational/{name}/pearson_lift": 0.1 for name in POPULATIONS},
            "similarity/simlex999/change": -0.02 * seed,
            "similarity/simlex999/change_low": -0.03 - 0.02 * seed,
            "similarity/simlex999/change_high": 0.05,
            "similarity/wordsim353/change": 0.01,
        }
        report = {
            "run": {"metrics": {key: {"last": value} for key, value in values.items()}, "epochs": 3},
            "model": {"parameters": {"trainable": 10}, "describe": {"objective": {"keep": keep}}},
            "alpha": {},
        }
        return measured(report, Path("none"), "field" if keep == 1 else f"field_keep_{keep:g}", seed)

    summary = summary_of([rated(keep, seed) for keep in (1.0, 0.0) for seed in (0, 1)])
    simlex = summary["controls"]["field"]["simlex999_change"]
    assert summary["controls"]["field"]["epochs"] == 3
    assert (simlex["mean"], *simlex["interval"]) == pytest.approx((-0.01, -0.04, 0.05), abs=TOLERANCE)
    assert "interval" not in summary["controls"]["field"]["wordsim353_change"]
    assert "−0.0100 [−0.0400, +0.0500], −0.0200 … 0.0000" in table.markdown(summary)
    figure = figures.front(summary)
    assert figure is not None
    assert len(figure.axes) == 4
    assert title_of(figure) == "Held-out nouns at preservation 0.910: field +0.100"
