"""Charts as figures, by what they hold: lines, panels, labels, bands; each is drawn to a file that is not blank."""

import math
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from modulant.reports.drawing.chart import Axis, Chart, Heat, Line
from modulant.reports.drawing.figures import draw
from modulant.reports.drawing.plotting import depth_colours, save
from modulant.reports.populations import POPULATIONS
from modulant.reports.run import charts
from modulant.reports.run.inside import inside, moved_tokens
from modulant.reports.series import smoothed
from modulant.reports.wording import number

Series = list[tuple[int, float]]


def rising(n: int, start: float, end: float, last_step: int = 2629) -> Series:
    steps = np.linspace(0, last_step, n).astype(int) if n > 1 else np.array([0])
    return [(int(step), start + (end - start) * (1 - math.exp(-step / 900))) for step in steps]


def figure_of(*found: Chart | None) -> Figure:
    """The charts, none of which may be missing, as a figure."""
    return draw([chart for chart in found if chart is not None or pytest.fail("no chart")])


def history(**series: Series) -> list[dict[str, float]]:
    """The checks of a report's section, from the series of its figures."""
    checks: dict[int, dict[str, float]] = {}
    for key, points in series.items():
        for step, value in points:
            checks.setdefault(step, {"step": step})[key] = value
    return list(checks.values())


def alpha_over_steps(mean: dict[int, Series], experts: dict[str, dict[int, Series]]) -> Figure:
    metrics = {f"alpha/layer_{layer:02d}": series for layer, series in mean.items()}
    for name, by_layer in experts.items():
        metrics |= {f"alpha/layer_{layer:02d}_{name}": series for layer, series in by_layer.items()}
    return figure_of(charts.alpha_over_steps({"experts": list(experts)}, metrics))


def final_alpha(final: list[list[float]], experts: list[str], initial: float) -> Figure:
    start = [[initial] * len(experts)] * len(final)
    alpha = {"final": final, "initial": start, "layers": list(range(len(final))), "experts": experts}
    return figure_of(charts.final_alpha(alpha))


def lines(figure: Figure, panel: int = 0) -> list[str]:
    """Labels of the series in a panel; reference lines span the axis and have two points."""
    return [str(line.get_label()) for line in figure.axes[panel].get_lines()]


def drawn(figure: Figure, tmp_path: Path) -> int:
    """Size of the file; every point of every series must lie inside its panel."""
    for axis in figure.axes:
        low, high = axis.get_ylim()
        for line in axis.get_lines():
            values = np.asarray(line.get_ydata(), dtype=float)
            values = values[np.isfinite(values)]  # a gap is none
            assert ((values >= low) & (values <= high)).all(), axis.get_title(loc="left")
    path = save(figure, tmp_path / "figures" / "one.png")
    assert [other.name for other in path.parent.iterdir()] == ["one.png"]
    assert path.read_bytes().startswith(b"\x89PNG")
    return path.stat().st_size


@pytest.mark.parametrize(
    ("layers", "points", "experts"),
    [
        (1, 60, ()),
        (3, 1, ("lerp",)),
        (24, 60, ("lerp",)),
        (3, 60, ("k1", "k2", "k4")),
        (24, 1, ("k1", "k2", "k4")),
    ],
)
def test_alpha_has_a_line_for_each_layer_and_a_panel_for_each_expert(
    tmp_path: Path, layers: int, points: int, experts: tuple[str, ...]
) -> None:
    mean = {layer: rising(points, 0.01, 0.03 + layer / 1000) for layer in range(layers)}
    figure = alpha_over_steps(mean, {name: mean for name in experts})
    if len(experts) > 1:
        assert [axis.get_title(loc="left") for axis in figure.axes[:2]] == ["mean over experts", "expert k1"]
    panels = 1 + (len(experts) if len(experts) > 1 else 0)
    with_lines = [axis for axis in figure.axes if axis.get_lines()]
    assert len(with_lines) == panels
    assert all(len(axis.get_lines()) == layers for axis in with_lines)
    # up to eight layers are named, more are told by a colour bar
    assert bool(figure.legends) == (layers <= 8)
    assert any(axis.get_ylabel() == "layer" for axis in figure.axes) == (layers > 8)
    assert with_lines[0].get_ylabel() == "injection strength α"
    if points == 1:
        assert all(line.get_marker() == "o" for line in with_lines[0].get_lines())
        assert list(with_lines[0].get_xticks()) == [0]
    assert drawn(figure, tmp_path) > 5000


def test_alpha_title_says_what_is_seen() -> None:
    title = alpha_over_steps({0: [(0, 0.01), (5, 0.03)], 1: [(0, 0.01), (5, 0.02)]}, {}).get_suptitle()
    assert title == "Mean α of 2 layers rose from 0.0100 to 0.0250"
    assert "stayed at 0.0100" in alpha_over_steps({0: [(0, 0.01), (5, 0.01)]}, {}).get_suptitle()


def test_depth_colours_grow_lighter_and_stay_dark_enough() -> None:
    luminance = [np.dot(to_rgb(colour[:3]), (0.2126, 0.7152, 0.0722)) for colour in depth_colours(24)]
    assert all(a < b for a, b in pairwise(luminance))
    assert luminance[-1] < 0.8


@pytest.mark.parametrize(
    ("train", "validation", "expected"),
    [
        (rising(263, 11, 5), rising(11, 11, 5), ["training, as logged", "training, smoothed", "validation"]),
        (rising(20, 11, 5), rising(2, 11, 5), ["training", "validation"]),
        ([], [(0, 11.3)], ["validation"]),
        ([(0, 11.3)], [], ["training"]),
    ],
)
def test_loss_shows_what_there_is(
    tmp_path: Path, train: list[tuple[int, float]], validation: list[tuple[int, float]], expected: list[str]
) -> None:
    figure = figure_of(charts.loss({"train/loss": train, "val/loss": validation}))
    assert lines(figure) == expected
    assert figure.axes[0].get_ylabel() == "cross-entropy (nats per token)"
    assert figure.axes[0].get_lines()[-1].get_marker() == "o"
    assert drawn(figure, tmp_path) > 5000


def test_objective_of_several_terms_is_no_cross_entropy() -> None:
    """It has a chart of its own; the task's loss, if it is one of the terms, stands beside the validation's."""
    terms = {"train/loss": [(0, 0.2), (9, -0.3)], "train/pearson_all": [(0, 0.1), (9, 0.5)]}
    task = {"train/task": [(0, 5.1), (9, 4.9)], "val/loss": [(0, 5.2), (9, 4.8)]}
    drawn_alone = charts.objective(terms)
    assert drawn_alone is not None
    assert [mark.points for mark in drawn_alone.views[""]] == [terms["train/loss"]]
    assert charts.loss(terms) is None
    both = charts.loss({**terms, **task})
    assert both is not None
    assert [mark.points for mark in both.views[""]] == [task["train/task"], task["val/loss"]]
    assert charts.objective({"train/loss": task["train/task"], "val/loss": task["val/loss"]}) is None


def test_smoothing_is_the_weighted_mean_it_says() -> None:
    values = np.random.default_rng(0).normal(size=40)
    weights = (1 - 1 / 7.0) ** np.arange(40)[::-1]
    assert smoothed(list(values), 7.0)[-1] == pytest.approx(np.average(values, weights=weights), abs=1e-12)
    assert smoothed([1.0, math.nan, 1.0], 2.0) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("layers", [3, 24])
def test_final_alpha_is_numbers_on_colour(tmp_path: Path, layers: int) -> None:
    table = [[0.01 + layer / 100, 0.02, 0.03] for layer in range(layers)]
    figure = final_alpha(table, ["k1", "k2", "k4"], initial=0.01)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts == [f"{value:.4f}" for row in table for value in row]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["k1", "k2", "k4"]
    assert drawn(figure, tmp_path) > 5000


def inside_metrics(layers: int, steps: int) -> dict[str, Series]:
    """Gates that are their step, plus a tenth of their layer; a CV that is known at every other step of layer 0."""
    found = {}
    for layer in range(layers):
        found[f"field/layer_{layer:02d}/push"] = [(50 * i, 0.01 * (layer + 1)) for i in range(steps)]
        for k in (1, 4):
            at = f"field/layer_{layer:02d}_k{k}"
            found[f"{at}/gate"] = [(50 * i, i + layer / 10) for i in range(steps)]
            found[f"{at}/volume_cv"] = [(50 * i, math.nan if i % 2 and not layer else 1.0) for i in range(steps)]
    return found


@pytest.mark.parametrize(("layers", "steps"), [(2, 1), (6, 40), (24, 1000)])
def test_a_heat_map_over_steps_has_a_row_for_each_layer_and_expert(tmp_path: Path, layers: int, steps: int) -> None:
    by_layer, by_expert = inside(inside_metrics(layers, steps) | {"alpha/layer_00_k1": [(0, 0.5)]})
    assert by_expert.y.names == [f"{layer} · k{k}" for layer in range(layers) for k in (1, 4)]
    assert list(by_layer.views) == ["push"]
    assert list(by_expert.views) == ["gate", "volume_cv"]
    (gate,) = by_expert.views["gate"]
    assert isinstance(gate, Heat)
    assert len(gate.columns) <= 101
    assert (gate.columns[0], gate.columns[-1]) == (0, 50 * (steps - 1))
    assert gate.cells[2] == [step / 50 + 0.1 for step in gate.columns]
    (cv,) = by_expert.views["volume_cv"]
    assert isinstance(cv, Heat)
    assert all(step % 100 == 0 for step in cv.columns)
    last = steps - 1
    assert by_expert.title == f"Gate, mean: {number(last)} to {number(last + (layers - 1) / 10)} at the end"
    assert by_expert.table.rows[0] == ["0 · k1, gate", "0", number(0), str(50 * last), number(last)]
    figure = draw([by_layer, by_expert])
    assert len(figure.axes) == 4, "the first view of each, and its colour bar"
    assert drawn(figure, tmp_path) > 5000


def test_without_figures_of_a_modulator_there_is_no_heat_map() -> None:
    assert inside({"alpha/layer_00_k1": [(0, 0.5)], "train/loss": [(0, 1.0)], "lerp/layer_00/push": []}) == []


def test_how_far_each_token_is_moved() -> None:
    seen = {"tokens": ["▁a", "▁dog", "▁a"], "layers": [3, 5], "moved": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]}
    text = {"prompt": "a dog a", "inspection": seen | {"drift": [0.1, 0.3, 0.2]}}
    broken = {"prompt": "x", "inspection": seen | {"drift": [0.1, None, 0.2]}}
    (chart,) = moved_tokens([{"prompt": "without"}, text, broken])
    assert (chart.name, chart.title, chart.y.names) == ("moved_0", "a dog a", ["3", "5"])
    assert chart.x.names == ["▁a", "▁dog", "▁a (2)"]
    (heat,) = chart.views[""]
    assert isinstance(heat, Heat)
    assert heat.cells == [[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]]
    assert "mean 0.2000; most: ▁dog 0.3000, ▁a (2) 0.2000" in chart.note


def test_lines_at_different_places_make_one_table() -> None:
    lines = [Line([(1.0, 0.5), (3.0, 0.7)], "a", "@blue"), Line([(2.0, 0.6), (3.0, 0.8)], "b", "@grey")]
    chart = Chart("both", "Both", {"": lines}, Axis("y"), Axis("x", whole=True))
    assert chart.table.header == ["x", "a", "b"]
    assert chart.table.rows == [["1", "0.5000", "–"], ["2", "–", "0.6000"], ["3", "0.7000", "0.8000"]]


@pytest.mark.parametrize(("views", "wider", "higher"), [(1, 1, 1), (2, 1.7, 1), (4, 1.7, 2)])
def test_heat_maps_beside_each_other_have_room(views: int, wider: float, higher: int) -> None:
    heat = Heat([[0.0, 1.0, 2.0]], "z", range(3), numbers=False)
    chart = Chart("maps", "Maps", {str(i): [heat] for i in range(views)}, Axis("y", ["row"]), Axis("x"))
    assert draw([chart]).get_size_inches() == pytest.approx((7.0 * wider, 2.14 * higher))


@pytest.mark.parametrize("layers", [1, 3, 24])
def test_final_alpha_of_one_expert_is_bars(tmp_path: Path, layers: int) -> None:
    figure = final_alpha([[0.02]] * layers, ["lerp"], initial=0.01)
    assert len(figure.axes) == 1
    assert len(figure.axes[0].patches) == layers
    assert len(figure.axes[0].get_lines()) == 1
    assert drawn(figure, tmp_path) > 5000


def test_equal_alphas_are_one_colour() -> None:
    image = final_alpha([[0.01, 0.01 + 1e-9]] * 2, ["k1", "k2"], 0.01).axes[0].get_images()[0]
    low, high = image.get_clim()
    assert high - low == pytest.approx(0.002, rel=1e-3)


@pytest.mark.parametrize("points", [1, 11])
def test_relational_has_references_and_three_populations(tmp_path: Path, points: int) -> None:
    series = {"pearson": rising(points, 0.24, 0.18), "spearman": rising(points, 0.09, 0.05)}
    baseline = {
        "original": {"pearson": 0.24, "spearman": 0.09},
        "static": {"pearson": 0.11, "spearman": 0.1},
        "random": {"pearson": -0.04},
    }
    populations = ["train", "mixed", "held_out"]
    lifts = {f"{name}/{kind}_lift": rising(points, 0, -0.06) for kind in series for name in populations}
    relational = {"history": history(**series, **lifts), "baseline": baseline, "interval": {"mixed": (-0.07, -0.05)}}
    figure = figure_of(charts.correlation(relational), charts.lift(relational))
    assert len(figure.axes) == 4
    untrained = ["original encoder", "static embeddings", "randomly initialised encoder"]
    assert lines(figure, 0) == [*untrained, "modulated encoder"]
    assert lines(figure, 1) == [*untrained[:2], "modulated encoder"]
    assert lines(figure, 2) == lines(figure, 3) == ["no lift", *(POPULATIONS[name] for name in populations)]
    assert [len(axis.collections) for axis in figure.axes] == [0, 0, 1, 0], "Pearson's interval"
    original = figure.axes[0].get_lines()[0]
    assert original.get_linestyle() == "--"
    assert list(original.get_ydata()) == [0.24, 0.24]
    assert drawn(figure, tmp_path) > 5000


def test_relational_without_a_base_is_one_row() -> None:
    relational = {"history": history(pearson=rising(3, 0.1, 0.2))}
    assert len(figure_of(charts.correlation(relational)).axes) == 1
    assert charts.lift(relational) is None


def test_bands_show_before_after_and_change(tmp_path: Path) -> None:
    before = {"band/0.00_0.05": math.nan, "band/0.50_0.90": 0.5, "band/0.90_1.00": 0.6, "gradient": 0.1}
    after = {"band/0.00_0.05": math.nan, "band/0.50_0.90": 0.45, "band/0.90_1.00": 0.7, "gradient": 0.2}
    figure = figure_of(charts.bands({"base": before, "last": after}))
    both, difference = figure.axes
    assert [list(line.get_ydata()) for line in both.get_lines()[1:]] == [[0.6, 0.5], [0.7, 0.45]]
    assert [text.get_text() for text in difference.texts] == ["+0.100", "−0.050"]
    for axis in figure.axes:
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0.90–1.00", "0.50–0.90"]
    assert "0.700 in the nearest band, 0.450 in the farthest" in figure.get_suptitle()
    assert drawn(figure, tmp_path) > 5000


@pytest.mark.parametrize(
    ("reference", "says"), [(0.317, "within its band throughout"), (0.2, "left its band at step 0")]
)
def test_pentachoron_shows_band_and_null(tmp_path: Path, reference: float, says: str) -> None:
    measured = {"reference": reference, "null": 0.085, "null_sd": 0.002}
    checks = [check | measured for check in history(cv=rising(11, 0.317, 0.33))]
    figure = figure_of(charts.pentachoron_cv({"history": checks, "reference": "base", "tolerance": 0.05}))
    axis = figure.axes[0]
    assert lines(figure) == [f"base {reference:.3f} ± 0.05", "Gaussian null 0.085 ± 2 sd", "modulated encoder"]
    spans = sorted((patch.get_y(), patch.get_height()) for patch in axis.patches)  # type: ignore[attr-defined]
    assert spans[0] == pytest.approx((0.081, 0.008))
    assert spans[1] == pytest.approx((reference - 0.05, 0.1))
    assert says in figure.get_suptitle()
    assert drawn(figure, tmp_path) > 5000


def test_pentachoron_of_one_point_and_no_reference(tmp_path: Path) -> None:
    figure = figure_of(charts.pentachoron_cv({"history": history(cv=[(0, 0.317)])}))
    assert lines(figure) == ["modulated encoder"]
    assert drawn(figure, tmp_path) > 5000


def test_a_constant_is_drawn_flat() -> None:
    low, high = alpha_over_steps({0: [(0, 0.29154), (9, 0.29154000001)]}, {}).axes[0].get_ylim()
    assert high - low >= 0.002


def test_no_global_state_is_touched() -> None:
    before = dict(matplotlib.rcParams)
    figure_of(charts.loss({"val/loss": rising(10, 2, 1)}))
    assert dict(matplotlib.rcParams) == before
