"""What a first reader of a page sees: the verdict, a few charts that explain themselves, and the rest folded."""

import re
from importlib.resources import files
from pathlib import Path

import pytest
from matplotlib.colors import to_rgb

from modulant.reports import render
from modulant.reports.drawing.chart import COLOURS, LAYERS, SKINS, Axis, Chart, Line, colour
from modulant.reports.run.charts import MOST_OPEN, READING
from modulant.reports.run.folder import metrics_of, report_of
from modulant.reports.run.page import html, markdown, of_folder
from probes.battery import publish
from tests.modulant.reports.test_verdict import CONTROLS
from tests.pages import check_structure


def test_a_run_begins_with_its_verdict_then_few_charts_then_folds_the_rest(field_run: Path) -> None:
    report = report_of(field_run)
    _, page = of_folder(field_run, report, metrics_of(field_run, report))
    found = check_structure(page)
    headings = [text for _, text in found.headings[1:]]
    assert headings[:4] == ["In short", "Charts", "Read with care", "Before → after"]
    folded = re.findall(r"<details class=part><summary><h2>(.*?)</h2></summary>", page)
    assert folded == headings[3:], "all that follows is folded"
    verdict = page[page.index("<h2 id=short>") : page.index("<h2>Charts")]
    assert "correlation of its cosines with WordNet" in verdict
    assert "did not change beyond chance" in verdict, "after two steps"
    assert report["stop"]["reason"] in verdict


def test_markdown_follows_the_same_order(field_run: Path) -> None:
    report = report_of(field_run)
    text = markdown(report)
    order = ["correlation of its cosines with WordNet", "## Figures", "## Read with care", "## Before → after"]
    assert sorted(map(text.index, order)) == list(map(text.index, order))
    figures = text[text.index("## Figures") : text.index("## Read with care")]
    assert figures.count("![") == figures.count("How to read this: ") <= MOST_OPEN
    assert text.count("![") == len(report["figures"]), "none is lost"


def test_controls_stand_beside_the_run_in_the_first_chart_and_in_words(field_run: Path) -> None:
    report = report_of(field_run)
    row = {"pearson_lift": {"held_out/nouns": {"mean": -0.2, "interval": [-0.3, -0.1]}}, "parameters": 1, "seeds": [0]}
    difference = {"held_out/nouns": {"mean": 1.0, "interval": [0.5, 1.5], "seeds": {"0": 1.0, "1": 1.0}}}
    figures = {
        "treatment": "this run",
        "level": 95,
        "controls": {**CONTROLS["controls"], "shuffled": {**row, "difference": difference}},
    }
    for control in figures["controls"].values():
        control |= {"parameters": 1, "seeds": [0]}
    page = html(report, {}, controls=figures)
    found = check_structure(page)
    assert "this run" in found.figures[0]["alt"]
    assert "lora_keep_0" not in found.figures[0]["alt"], "points of a front are no controls"
    assert "1 of 2 controls lifts less" in page
    assert "without an interval, so not judged: taxonomy_shuffled" in page


def test_a_page_of_a_battery_begins_with_its_finding() -> None:
    charts = [
        Chart(f"c{i}", "t", {"": [Line([(0, 1)], "a", "@blue")]}, Axis("y"), LAYERS, reading="so long a line " * 3)
        for i in range(8)
    ]
    content = {"title": "t", "lead": "l", "finding": "It is so.", "verdicts": ["**A**: b"], "method": ["m"]}
    found = check_structure(page := render.html("battery", charts, **content, sections={}))
    assert [figure["folded"] for figure in found.figures] == [False] * MOST_OPEN + [True] * 3
    assert "<h2 id=short>In short</h2><p>It is so.</p>" in page


def test_a_battery_without_a_finding_begins_with_its_first_verdict(tmp_path: Path) -> None:
    content = {"title": "t", "lead": "l", "verdicts": ["**A**: b", "**C**: d"], "sections": {}, "method": ["m"]}
    publish(tmp_path, {"figures": {}}, [], content)
    assert "<h2 id=short>In short</h2><p><strong>A</strong>: b</p>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "report.md").read_text().startswith("# t\n\nl\n\n**A**: b\n\n## What the nulls say")


def test_every_chart_of_a_run_says_how_to_read_it() -> None:
    """In one line: of a wide page, two of a narrow one."""
    for name, text in READING.items():
        assert 40 < len(text) < 190, name
        assert text.endswith("."), name


def luminance(of: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(of)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG's ratio, 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def themes() -> list[dict[str, str]]:
    """The variables of page.css: light, dark, print."""
    style = files("modulant.reports").joinpath("templates", "page.css").read_text(encoding="utf-8")
    found = [dict(re.findall(r"--(\w+): (#\w+);", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)]
    return [{name: f"#{v[1:] * 2}" if len(v) == 4 else v for name, v in theme.items()} for theme in found]


def test_contrast_is_what_a_ratio_of_black_and_white_is() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_text_of_a_page_has_contrast() -> None:
    """WCAG AA: 4.5 for text, on paper and on the tint of boxes."""
    assert len(themes()) == 3
    for theme in themes():
        for ink in ("ink", "soft", "accent"):
            for ground in ("paper", "tint"):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground, theme)


@pytest.mark.parametrize("skin", ["light", "dark"])
def test_lines_and_words_of_a_chart_have_contrast(skin: str) -> None:
    """WCAG AA: 3 for what is drawn, 4.5 for what is written."""
    paper = SKINS[skin]["@paper"]
    for token in (*COLOURS, *(f"@depth12_{layer}" for layer in range(12))):
        assert contrast(colour(token, skin), paper) >= 3, token
    for token in ("@ink", "@grey"):
        assert contrast(colour(token, skin), paper) >= 4.5, token
    assert len({colour(token, skin) for token in COLOURS}) == len(COLOURS)
