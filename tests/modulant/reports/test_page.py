"""report.html of a real run: opened in a browser without a network, with hostile text in it, and read without one."""

import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from modulant.reports import render
from modulant.reports.drawing.chart import LAYERS, Axis, Band, Chart, Level, Line
from modulant.reports.drawing.figures import draw
from modulant.reports.drawing.interactive import drawn
from modulant.reports.run.charts import charts
from modulant.reports.run.controls import table as table_of
from modulant.reports.run.folder import metrics_of, report_of
from modulant.reports.run.page import html, of_folder
from modulant.reports.run.rows import headline

HOSTILE = "</script></pre><img src=x onerror=document.title='owned'><script>document.title='owned'</script>`&amp;"
# what Chromium asks for itself, whatever the page
BROWSERS_OWN = re.compile(r"https?://[\w.-]+\.(google|googleapis)\.com[/:]")
FIRST = ["lift", "bands", "loss", "alpha", "cv"]
FIELD = [*FIRST, "correlation", "objective", "alpha_final", "inside_layers", "inside_experts"]
FIELD += ["volumes", "moved_0", "moved_1", "moved_2"]


def opened(chrome: str, file: Path, folder: Path) -> tuple[str, list[str], set[str]]:
    """The page's DOM once it is drawn, what the console said, and every address that was asked for."""
    log = folder / "net.json"
    command = [
        chrome, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--no-first-run", f"--user-data-dir={folder / 'profile'}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--log-net-log={log}",
        "--window-size=1200,900", "--virtual-time-budget=20000", "--dump-dom", file.absolute().as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    asked = set(re.findall(r'"url":"((?:https?|wss?|ftp)://[^"]*)', log.read_text()))
    return done.stdout, console, {url for url in asked if not BROWSERS_OWN.match(url)}


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def hostile(run: Path, tmp_path: Path) -> Path:
    """A copy of a run in which whatever comes from data would like to be markup."""
    copy = tmp_path / "run"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints", "tensorboard*", "modulator"))
    report = report_of(copy)
    report["texts"][0] |= {"prompt": HOSTILE, "modulated": HOSTILE}
    report["texts"][0]["inspection"]["tokens"][0] = HOSTILE
    report["run"]["folder"] = report["stop"]["reason"] = report["model"]["describe"]["backbone"] = HOSTILE
    report["alpha"]["experts"][0] = HOSTILE
    (copy / "report.json").write_text(json.dumps(report))
    (copy / "config.yaml").write_text(f"# {HOSTILE}\n")
    row = {"prompt": HOSTILE, "original": "a", "modulated": HOSTILE}
    (copy / "predictions.jsonl").write_text(json.dumps(row) + "\nno json\n[1]\n")
    (copy / "report.html").write_text(of_folder(copy, report, metrics_of(copy, report))[1])
    return copy / "report.html"


def test_a_browser_draws_every_chart_runs_nothing_else_and_asks_nobody(
    field_run: Path, chrome: str, tmp_path: Path
) -> None:
    dom, console, asked = opened(chrome, hostile(field_run, tmp_path), tmp_path)
    assert console == []
    assert asked == set()
    assert f'data-drawn="{len(FIELD)}"' in dom
    drawn = {match[1]: part for part in dom.split("<figure>")[1:] if (match := re.search(r'id="chart-(\w+)"', part))}
    assert list(drawn) == FIELD
    for name, part in drawn.items():
        assert 'class="main-svg"' in part, name
    assert drawn["alpha"].count('class="trace scatter') == len(report_of(field_run)["alpha"]["layers"])
    assert drawn["alpha_final"].count("<image") == 1
    assert "<title>owned" not in dom
    assert Elements(dom).all("img") == []


def test_the_file_names_no_address_and_holds_what_it_needs(field_run: Path) -> None:
    text = (field_run / "report.html").read_text()
    assert len(text) < 2.5e6
    elements = Elements(text)
    for _, attributes in elements.found:
        assert not attributes.keys() & {"src", "href", "srcset", "action", "data"}
    assert elements.all("link") == []
    (policy,) = (meta["content"] for meta in elements.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "script-src 'sha256-" in policy
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_it_reads_without_javascript(field_run: Path) -> None:
    """Summary, every table, each chart's numbers and what it shows in words, and the configuration."""
    text, report = (field_run / "report.html").read_text(), report_of(field_run)
    head = text[: text.index("<script")]
    for heading in ("Before → after", "α per layer", "Loss", "Correlation with WordNet", "Pentachora", "Side by side",
                    "Read with care", "What ran", "Configuration"):  # fmt: skip
        assert f"<h2>{heading}</h2>" in head
    assert "Lift, held-out" in head
    assert report["stop"]["reason"] in head
    labels = [element["aria-label"] for element in Elements(head).all("div") if element.get("role") == "img"]
    assert len(labels) == len(FIELD)
    assert all(label and len(label) > 30 for label in labels)
    assert head.count("<summary>Numbers</summary>") == len(FIELD)
    assert "class_path: modulators.FieldModulator" in head
    for i, row in enumerate(report["texts"]):
        assert set(row) == {"prompt", "lemma", "original", "modulated", *(["inspection"] if i < 3 else [])}
    assert len(report["texts"]) == 12
    assert "None" not in head.replace("none", "")
    assert ">nan<" not in head


def test_charts_are_what_plotly_knows(field_run: Path) -> None:
    """Its own classes check every key and value."""
    import plotly.graph_objects as go

    report = report_of(field_run)
    found = charts(report, metrics_of(field_run, report))
    assert set(found) == set(FIELD)
    everything = drawn(list(found.values()))
    views = {}
    for chart in everything["charts"]:
        views[chart["name"]] = dict(zip(found[chart["name"]].views, chart["views"], strict=True))
        for view in chart["views"]:
            text = json.dumps([view, chart["layout"]])
            assert set(re.findall(r"@[a-z]+(?:\d+_\d+)?", text)) <= everything["skins"]["dark"].keys()
            traces, layout = json.loads(re.sub(r'"@[a-z]+(\d+_\d+)?"', '"#123456"', text))
            go.Figure(data=traces, layout=layout)
    lines = views["alpha"]
    assert list(lines) == ["mean over experts", "expert k1", "expert k2", "expert k4"]
    final = report["alpha"]["final"]
    for column, name in enumerate(("k1", "k2", "k4")):
        for layer, trace in enumerate(lines[f"expert {name}"]):
            assert trace["y"][-1] == pytest.approx(final[layer][column], rel=1e-5)
    (heat,) = views["alpha_final"][""]
    assert heat["z"] == final
    (gate,) = views["inside_experts"]["gate"]
    assert gate["x"] == [0]
    assert gate["y"] == [f"{layer} · {expert}" for layer in (0, 1) for expert in ("k1", "k2", "k4")]
    logged = metrics_of(field_run, report)
    assert gate["z"][4] == [pytest.approx(logged["field/layer_01_k2/gate"][0][1], rel=1e-5)]
    (moved,) = views["moved_1"][""]
    inspection = report["texts"][1]["inspection"]
    assert len(moved["x"]) == len(set(moved["x"])) == len(inspection["tokens"])
    assert moved["z"][1] == pytest.approx([row[1] for row in inspection["moved"]], rel=1e-5)
    volumes = report["pentachoron"]["volumes"]
    assert [trace["name"] for trace in views["volumes"][""]] == [
        "original encoder",
        "modulated encoder",
        "Gaussian null",
    ]
    for name in ("original", "modulated", "null"):
        assert sum(volumes[name]) == pytest.approx(1)


def test_sections_of_what_was_not_measured_are_left_out(field_run: Path) -> None:
    report: dict[str, Any] = report_of(field_run)
    bare = report | {"relational": {}, "pentachoron": {}, "loss": {}, "texts": []}
    bare["alpha"] = {"layers": [], "experts": [], "initial": None, "final": None, "convergence": None}
    text = html(bare, {})
    assert "<h2>Pentachora" not in text
    assert "<h2>α per layer" not in text
    assert "<script" not in text, "no charts, no library"
    assert "<h2>What ran" in text
    old = html({key: value for key, value in report.items() if key != "texts"}, {})
    assert "Side by side" not in old, "reports from before there were answers"


def test_answers_to_prompts_are_shown_by_the_scale_of_alpha_where_it_was_swept(field_run: Path, tmp_path: Path) -> None:
    report = report_of(field_run)
    row = {"prompt": "a large dog", "original": "cat", "modulated": "hound"}
    shown = html(report, {}, predictions=[row])
    assert "<td>a large dog</td><td>cat</td><td>hound</td>" in shown
    assert "α times" not in shown
    swept = html(report, {}, predictions=[row | {"alpha_scale": 0.0}, row | {"alpha_scale": 2.5}])
    assert "<td>a large dog</td><td>2.5</td><td>cat</td>" in swept
    (tmp_path / "predictions.jsonl").write_text('{"prompt": "x"}\n[1]\nno json\n{"alpha_scale": "y"}\n')
    assert "<h2>Asked" not in of_folder(tmp_path, report, {})[1]


def test_points_of_a_front_are_no_rows_among_the_controls() -> None:
    row = {"parameters": 10, "seeds": [0], "pearson_lift": {"all": {"mean": 0.1}}}
    table = table_of({"field": row, "lora": row, "lora_keep_0": {**row, "front": "lora"}}, {})
    assert [name for name, *_ in table.rows] == ["field", "lora"]


def test_what_was_measured_once_is_a_point_in_the_middle_and_lines_through_it() -> None:
    marks = [Level(0.3, "original encoder", "@ink"), Line([(40, 0.31)], "modulated encoder", "@blue")]
    ((level, line),) = (shown := drawn([Chart("cv", "", {"": marks}, Axis("CV"))])["charts"][0])["views"]
    assert "markers" in line["mode"]
    assert line["marker"]["size"] >= 8
    assert level["x"] == [39, 41]
    assert shown["layout"]["xaxis"] | {"range": (39, 41), "tickvals": [40]} == shown["layout"]["xaxis"]


def test_a_band_is_an_outline_that_is_filled_and_gaps_are_left_out() -> None:
    band = Band([(0, 0.1, 0.2), (1, math.nan, 0.3), (2, 0.3, 0.5)], "", "@blue")
    chart = Chart(
        "entropy", "", {"": [band, Line([(0, 0.1), (1, 0.2), (2, 0.4)], "model", "@blue")]}, Axis("h"), LAYERS
    )
    ((shown, line),) = drawn([chart])["charts"][0]["views"]
    assert list(zip(shown["x"], shown["y"], strict=True)) == [(0, 0.1), (2, 0.3), (2, 0.5), (0, 0.2)]
    assert shown["fill"] == "toself"
    assert not shown["showlegend"]
    assert line["name"] == "model"
    assert (min(chart.values), max(chart.values)) == (0.1, 0.5)
    (axis,) = draw([chart]).axes
    assert len(axis.collections) == 1


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [(1e-6, -2e-6, "0.0000"), (0.004, 0.008, "+0.0040"), (0.0, 0.1, "+0.1000"), (0.05, 0.06, "+0.0100 (+20.0 %)")],
)
def test_no_percentage_of_a_figure_near_zero(field_run: Path, before: float, after: float, change: str) -> None:
    report = report_of(field_run)
    relational = {
        "baseline": {"original": {"pearson": before}},
        "last": {"step": report["run"]["steps"], "pearson": after},
    }
    rows = {row[0]: row for row in headline(report | {"relational": relational}).rows}
    assert rows["Pearson with path similarity"][3] == change


def test_an_empty_page_is_a_page() -> None:
    text = render.html("page", title="a < b", lead="")
    assert "<title>a &lt; b</title>" in text
