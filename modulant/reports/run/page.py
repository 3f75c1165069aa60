"""A run as one page: report.md for a repository or a chat, report.html for a browser."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modulant.reports import render
from modulant.reports.run import controls as beside
from modulant.reports.run import parts_of_text, rows
from modulant.reports.run.charts import FIGURES, Metrics, charts, figures_first, reading_of, shown_first
from modulant.reports.run.rows import Report
from modulant.reports.run.verdict import in_words, verdict
from modulant.reports.table import Table
from modulant.reports.wording import counted

_SHOWN = 40  # rows of predictions.jsonl

Answers = Sequence[Mapping[str, Any]]


def markdown(report: Report, controls: Mapping[str, Any] | None = None) -> str:
    """report.md, from the dictionary of report.json; sections of what was not measured are left out.

    Args:
        controls: figures.json of ``probe.py controls``.
    """
    first = figures_first(report["figures"])
    rest = [name for name in report["figures"] if name not in first]
    return render.markdown(
        "report",
        **_content(report, controls),
        controls_table=beside.table((controls or {}).get("controls") or {}, report["relational"]),
        run=report["run"],
        figures=[(name, FIGURES[name][0], reading_of(name), report["figures"][name]) for name in (*first, *rest)],
        first=first,
    )


def html(
    report: Report,
    metrics: Metrics,
    config: str = "",
    predictions: Answers = (),
    controls: Mapping[str, Any] | None = None,
) -> str:
    """report.html; sections of what was not measured are left out.

    Args:
        report: what report.json holds.
        metrics: what metrics.csv holds, by key.
        config: the run's config.yaml.
        predictions: rows of predictions.jsonl.
        controls: figures.json of ``probe.py controls``.
    """
    texts = [row for row in report.get("texts") or [] if "original" in row]  # an encoder answers nothing
    rest = f" {len(predictions)} rows, the first {_SHOWN} of them shown." if len(predictions) > _SHOWN else ""
    content = _content(report, controls)
    content["what_ran"] = Table(["", ""], [[name, text.strip("`")] for name, text in content["what_ran"].rows], words=2)
    compared = beside.chart(report, controls)
    drawn = [*([compared] if compared else []), *charts(report, metrics).values()]
    return render.html(
        "report",
        drawn,
        **content,
        moved=[chart.name for chart in drawn if chart.name.startswith("moved_")],
        first=shown_first([chart.name for chart in drawn]),
        lead=_lead(report),
        texts=_texts(texts),
        texts_note=_texts_note(texts),
        asked=_asked(predictions),
        asked_note=f"From `predictions.jsonl`.{rest}",
        controls=controls if controls and controls.get("controls") else None,
        controls_table=beside.table((controls or {}).get("controls") or {}, report["relational"]),
        config=config,
    )


def _content(report: Report, controls: Mapping[str, Any] | None) -> dict[str, Any]:
    """What both pages say."""
    alpha, relational = report["alpha"], report["relational"]
    return {
        "in_words": in_words(report, controls),
        "verdict": verdict(report, controls),
        "title": rows.title(report),
        "headline": rows.headline(report),
        "baselines": rows.baselines(relational),
        "alphas": rows.alphas(alpha),
        "convergence": rows.convergence(alpha),
        "populations": rows.populations(relational),
        "intervals": rows.intervals(relational),
        "by_frequency": parts_of_text.by_frequency(report),
        "by_position": parts_of_text.by_position(report),
        "parts_of_speech": rows.parts_of_speech(relational),
        "caveats": rows.caveats(report),
        "what_ran": rows.what_ran(report),
    }


def of_folder(folder: Path, report: Report, metrics: Metrics, controls: Path | None = None) -> tuple[str, str]:
    """report.md and report.html of a run folder, with what lies in it.

    Args:
        controls: the folder of a ``probe.py controls``; without it the one that the run folder lies in or holds, if
            there is one.

    Raises:
        ValueError: `controls` holds no figures.
    """
    stage = report["run"]["stage"]
    files = (folder / name for name in (f"config_{stage}.yaml", "config.yaml"))
    config = next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")
    found = _controls_of(folder, controls)
    predictions = _predictions(folder / "predictions.jsonl")
    return markdown(report, found), html(report, metrics, config, predictions, found)


def _controls_of(folder: Path, controls: Path | None) -> Mapping[str, Any] | None:
    around = folder.resolve().parent.parent  # <controls>/<control>/seed_<n>
    inside = folder / "controls"
    table_of = controls or next((path for path in (inside, around) if (path / "controls.json").is_file()), None)
    if table_of is None:
        return None
    try:
        return dict(json.loads((table_of / "figures.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        if controls is None:
            return None
        raise ValueError(
            f"--controls: {controls} holds no readable figures.json; name a folder that probe.py controls wrote"
        ) from error


def _predictions(file: Path) -> list[dict[str, Any]]:
    """Rows with a prompt and both answers; other lines are skipped."""
    if not file.is_file():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("alpha_scale", 1.0), int | float):
            continue
        if all(isinstance(row.get(key), str) for key in ("prompt", "original", "modulated")):
            found.append(row)
    return found


def _lead(report: Report) -> str:
    describe, run = report["model"]["describe"], report["run"]
    on = f"on {describe['backbone']}, " if describe.get("backbone") else ""
    seed = f", seed {run['seed']}" if run["seed"] is not None else ""
    return f"{on}{run['folder']}{seed}, {run['ended'][:16].replace('T', ' ')} UTC"


def _texts(texts: Answers) -> Table:
    cells = [[str(row[key]) for key in ("prompt", "lemma", "original", "modulated")] for row in texts]
    return Table(["held-out definition", "lemma", "original", "modulated"], cells, words=4)


def _texts_note(texts: Answers) -> str:
    changed = sum(row["original"] != row["modulated"] for row in texts)
    original, modulated = (
        sum(row[name].strip() == row["lemma"].strip() for row in texts) for name in ("original", "modulated")
    )
    return (
        f"Greedy answers to {counted(len(texts), 'definition')}, spread evenly over the held-out ones: {changed} "
        f"differ. The original names the lemma of {original}, the modulated model that of {modulated}."
    )


def _asked(predictions: Answers) -> Table:
    """Prompts and answers; with a column for the scale of α where it was swept, or not 1."""
    scaled = any(row.get("alpha_scale", 1.0) != 1.0 for row in predictions)
    cells = [
        [row["prompt"], *([f"{row.get('alpha_scale', 1.0):g}"] * scaled), row["original"], row["modulated"]]
        for row in predictions[:_SHOWN]
    ]
    # A row of an older version, and one of `probe.py talk`, does not say which checkpoint it is of.
    untrained = all("checkpoint" in row and row["checkpoint"] is None for row in predictions)
    name = "untrained modulator" if untrained else "modulated"
    return Table(["prompt", *(["α times"] * scaled), "original", name], cells, words=4)
