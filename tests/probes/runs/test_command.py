"""Real runs side by side: settings that differ, paired differences, what is passed over, and every file it leaves."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import probe
from probes.runs.command import ordered
from tests.pages import check_structure

POPULATIONS = ["all", "train", "mixed", "held_out"]


@pytest.fixture
def runs(field_run: Path, tmp_path: Path) -> list[Path]:
    """Three runs: a real one; the same under another rate whose modulated encoder is 0.01 better on each resample;
    and one over other resamples."""
    made = []
    for name, lr, better in (("a", 1e-3, 0.0), ("b", 5e-4, 0.01), ("c", 1e-3, 0.01)):
        folder = tmp_path / "runs" / name
        shutil.copytree(field_run, folder, ignore=shutil.ignore_patterns("checkpoints", "tensorboard*", "modulator"))
        config = yaml.safe_load((folder / "config.yaml").read_text())
        config["model"]["init_args"]["lr"] = lr
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        report = json.loads((folder / "report.json").read_text())
        for population in POPULATIONS:
            key = f"relational/{'' if population == 'all' else population + '/'}pearson_lift"
            report["run"]["metrics"][key]["last"] += better
        (folder / "report.json").write_text(json.dumps(report))
        with np.load(folder / "relational_bootstrap.npz") as arrays:
            original, modulated = arrays["original"], arrays["modulated"]
        shift = 0.5 if name == "c" else 0.0
        np.savez(folder / "relational_bootstrap.npz", original=original + shift, modulated=modulated + shift + better)
        made.append(folder)
    return made


def compared(*argv: str, output: Path) -> dict[str, Any]:
    assert probe.main(["runs", *argv, "--output", str(output)]) == 0
    return dict(json.loads((output / "runs.json").read_text()))


def test_what_differs_and_what_came_of_it(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compared(*map(str, runs), str(tmp_path), output=tmp_path / "out")
    assert found["differs"] == ["model.lr"]
    a, b, c = found["runs"]
    assert [run["settings"] for run in (a, b, c)] == [{"model.lr": 1e-3}, {"model.lr": 5e-4}, {"model.lr": 1e-3}]
    with np.load(runs[0] / "relational_bootstrap.npz") as arrays:
        lift = arrays["modulated"] - arrays["original"]
    for column, population in enumerate(POPULATIONS):
        low, high = np.nanpercentile(lift[:, column], (2.5, 97.5))
        assert a["lift"][population]["interval"] == pytest.approx([low, high], abs=1e-9)
        assert b["difference"][population]["value"] == pytest.approx(0.01, abs=1e-9)
        assert b["difference"][population]["interval"] == pytest.approx([0.01, 0.01], abs=1e-9)
        assert c["difference"][population]["interval"] is None, "other resamples are not paired"
    assert a["difference"] == {}
    said = capsys.readouterr()
    assert "larger than a" in said.out
    assert f"passed over: {tmp_path} is no run folder" in said.err
    assert len(found["passed_over"]) == 1
    with (tmp_path / "out" / "runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert float(rows[1]["lift/held_out"]) == b["lift"]["held_out"]["value"]
    assert rows[1]["settings/model.lr"] == "0.0005"


def test_the_page_and_the_figures_hold_every_run(runs: list[Path], tmp_path: Path) -> None:
    import plotly.graph_objects as go

    compared(*map(str, runs), output=tmp_path / "out")
    assert (tmp_path / "out" / "runs.png").stat().st_size > 20_000
    text = (tmp_path / "out" / "runs.html").read_text()
    check_structure(text)
    drawn = re.search(r"<script type=\"application/json\" id=drawn>(.*?)</script>", text)
    assert drawn is not None
    charts = {chart["name"]: chart for chart in json.loads(drawn[1])["charts"]}
    assert list(charts) == ["alpha", "validation", "lift", "forest"]
    for chart in charts.values():
        for view in chart["views"]:
            assert {trace["name"] for trace in view} - {"no lift"} == {"a", "b", "c"}
            known = re.sub(r'"@[a-z]+"', '"#123456"', json.dumps([view, chart["layout"]]))
            go.Figure(*json.loads(known)[:1], layout=json.loads(known)[1])


def test_a_test_part_is_named(runs: list[Path], tmp_path: Path) -> None:
    for run in runs:
        report = json.loads((run / "report.json").read_text())
        report["relational"]["last"]["validation/pairs"] = 10.0
        (run / "report.json").write_text(json.dumps(report))
    compared(*map(str, runs), output=tmp_path / "out")
    page, html = ((tmp_path / "out" / f"runs.{end}").read_text() for end in ("md", "html"))
    assert " test × test |" in page
    assert "- b − a, test: " in page
    assert "test × test" in html
    assert "held-out" not in page + html


def test_rows_are_sorted_and_the_first_given_stays_what_others_are_compared_with(
    runs: list[Path], tmp_path: Path
) -> None:
    a, b, c = map(str, runs)
    found = compared(b, a, c, "--sort", "lift", output=tmp_path / "out")
    assert [run["name"] for run in found["runs"]] == ["b", "c", "a"]
    assert found["first"] == "b"
    assert [run["name"] for run in ordered(found["runs"], "name")] == ["a", "b", "c"]
    found["runs"][0]["figures"] |= {"validation_loss": 3.0}
    del found["runs"][1]["figures"]["validation_loss"]
    assert [run["name"] for run in ordered(found["runs"], "loss")] == ["b", "a", "c"], "those without it are last"


def test_no_run_at_all_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"run": 3}')
    assert probe.main(["runs", str(tmp_path), str(tmp_path / "gone"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert error[0].endswith("is no report of a run: it has no 'run'")
    assert error[-1].startswith("error: none of 2 folders is a run's")
    assert not (tmp_path / "out").exists()


def test_a_report_is_written_again_with_its_controls(
    field_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(field_run, run, ignore=shutil.ignore_patterns("checkpoints", "tensorboard*", "modulator"))
    before = (run / "report.html").read_text()
    assert probe.main(["report", str(run)]) == 0
    assert (run / "report.html").read_text() == before, "from its folder alone, to the letter"
    spread = {"mean": 0.0123, "min": 0.01, "max": 0.02, "seeds": {"0": 0.01, "1": 0.02}, "interval": [0.011, 0.015]}
    lift = dict.fromkeys(POPULATIONS, spread)
    control = {"parameters": 5, "seeds": [0, 1], "pearson_lift": lift, "alpha": spread, "validation_loss": None}
    controls = {"level": 95, "controls": {"<b>shuffled": control}, "verdicts": ["so it is"]}
    (tmp_path / "figures.json").write_text(json.dumps(controls))
    assert probe.main(["report", str(run), "--controls", str(tmp_path)]) == 0
    text = (run / "report.html").read_text()
    assert "<h2>Controls" in text
    assert "&lt;b&gt;shuffled" in text
    assert "+0.0123 [+0.0110,\u00a0+0.0150]" in text
    assert probe.main(["report", str(run), "--controls", str(run)]) == 2
    assert "holds no readable figures.json" in capsys.readouterr().err
