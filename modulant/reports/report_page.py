"""report.html: a run as one page for a browser, from report.json, metrics.csv, config.yaml and their neighbours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modulant.reports import report_rows as say
from modulant.reports.html import bullets, escaped, figure, folded, page, paragraph, said, section, table
from modulant.reports.report_charts import Metrics, charts
from modulant.reports.report_rows import Report
from modulant.reports.verdict import verdict
from modulant.reports.wording import number

_SHOWN = 40  # rows of predictions.jsonl
_SPREAD = {"validation_loss": "validation loss", "preservation": "preservation", "alpha": "final α"}

Answers = Sequence[Mapping[str, Any]]


def report_page(
    report: Report,
    metrics: Metrics,
    config: str = "",
    predictions: Answers = (),
    controls: Mapping[str, Any] | None = None,
) -> str:
    """The page.

    Args:
        report: what report.json holds.
        metrics: what metrics.csv holds, by key.
        config: the run's config.yaml.
        predictions: rows of predictions.jsonl.
        controls: figures.json of ``probe.py controls``.
    """
    drawn = charts(report, metrics)
    relational, alpha = report["relational"], report["alpha"]

    def chart(name: str) -> str:
        return figure(drawn.get(name))

    headline = say.headline(report)
    sections = [
        _summary(report),
        section("Before → after", table(["", "before", "after", "change"], headline), _baselines(relational, headline)),
        section("α per layer", chart("alpha"), chart("alpha_final"), _alphas(alpha), paragraph(say.convergence(alpha))),
        section("Loss", chart("loss")),
        section(
            "Correlation with WordNet",
            chart("correlation"),
            chart("lift"),
            table(*say.populations(relational) or ([], [])),
            paragraph(say.intervals(relational)),
            chart("bands"),
        ),
        section("Pentachora", chart("cv"), chart("volumes")),
        section("Side by side", _texts(report.get("texts") or [])),
        section("Asked", _asked(predictions)),
        section("Controls", _controls(controls)),
        section("Read with care", bullets(say.caveats(report))),
        section("What ran", table(["", ""], [[name, text.strip("`")] for name, text in say.what_ran(report)], words=2)),
        section("Configuration", folded("config.yaml", f"<pre>{escaped(config)}</pre>" if config else "")),
    ]
    return page(say.title(report), _lead(report), sections, list(drawn.values()))


def of_folder(folder: Path, report: Report, metrics: Metrics, controls: Path | None = None) -> str:
    """The page of a run folder, with what lies in it.

    Args:
        controls: the folder of a ``probe.py controls``; without it the one that the run folder lies in, if it is one.

    Raises:
        ValueError: `controls` holds no figures.
    """
    stage = report["run"]["stage"]
    files = (folder / name for name in (f"config_{stage}.yaml", "config.yaml"))
    config = next((file.read_text(encoding="utf-8") for file in files if file.is_file()), "")
    around = folder.resolve().parent.parent  # <controls>/<control>/seed_<n>
    table_of = controls or (around if (around / "controls.json").is_file() else None)
    found = None
    if table_of is not None:
        try:
            found = json.loads((table_of / "figures.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            if controls is not None:
                raise ValueError(
                    f"--controls: {controls} holds no readable figures.json; name a folder that probe.py controls left"
                ) from error
    return report_page(report, metrics, config, _rows(folder / "predictions.jsonl"), found)


def _rows(file: Path) -> list[dict[str, Any]]:
    """Rows with a prompt and both answers; other lines are passed over."""
    if not file.is_file():
        return []
    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if not isinstance(row, dict) or not isinstance(row.get("alpha_scale", 1.0), int | float):
            continue
        if all(isinstance(row.get(key), str) for key in ("prompt", "original", "modulated")):
            rows.append(row)
    return rows


def _lead(report: Report) -> str:
    describe, run = report["model"]["describe"], report["run"]
    on = f"on {describe['backbone']}, " if describe.get("backbone") else ""
    seed = f", seed {run['seed']}" if run["seed"] is not None else ""
    ended = run["ended"][:16].replace("T", " ")
    return f"<p>{escaped(on)}{escaped(run['folder'])}{escaped(seed)}, {escaped(ended)} UTC</p>"


def _summary(report: Report) -> str:

    found = verdict(report)
    items = "".join(f"<dt>{escaped(name)}</dt><dd>{said(sentence)}</dd>" for name, sentence in found)
    return f'<section class=summary aria-label="Summary"><dl>{items}</dl></section>' if items else ""


def _baselines(relational: Mapping[str, Any], headline: say.Rows) -> str:
    return paragraph(say.baselines(relational)) if headline else ""


def _alphas(alpha: Mapping[str, Any]) -> str:
    found = say.alphas(alpha)
    return folded("α by layer, start and end", table(*found)) if found else ""


def _texts(texts: Answers) -> str:
    if not texts:
        return ""
    rows = [[str(row[key]) for key in ("prompt", "lemma", "original", "modulated")] for row in texts]
    greedy = f"Greedy answers to {len(texts)} definitions, spread evenly over the held-out ones"
    changed = sum(row["original"] != row["modulated"] for row in texts)
    right = {
        name: sum(row[name].strip() == row["lemma"].strip() for row in texts) for name in ("original", "modulated")
    }
    return table(["held-out definition", "lemma", "original", "modulated"], rows, words=4) + paragraph(
        f"{greedy}: {changed} differ. The original names the lemma of {right['original']}, the modulated model that of "
        f"{right['modulated']}.",
        "note",
    )


def _asked(predictions: Answers) -> str:
    """Prompts and answers; with a column for the scale of α where it was swept, or not 1."""
    scaled = any(row.get("alpha_scale", 1.0) != 1.0 for row in predictions)
    rows = [
        [row["prompt"], *([f"{row.get('alpha_scale', 1.0):g}"] if scaled else []), row["original"], row["modulated"]]
        for row in predictions[:_SHOWN]
    ]
    rest = f"{len(predictions)} rows, the first {_SHOWN} of them shown." if len(predictions) > _SHOWN else ""
    shown = table(["prompt", *(["α times"] if scaled else []), "original", "modulated"], rows, words=4)
    return shown + paragraph(f"From `predictions.jsonl`. {rest}".strip(), "note") if rows else ""


def _controls(summary: Mapping[str, Any] | None) -> str:
    if not summary or not summary.get("controls"):
        return ""
    names = {"all": "all pairs", **say.POPULATIONS}
    header = ["lift of Pearson", "parameters", "seeds", *names.values(), *_SPREAD.values()]
    rows = [
        [
            name,
            f"{control['parameters']:,}",
            ", ".join(map(str, control["seeds"])),
            *(_spread(control["pearson_lift"].get(population), signed=True) for population in names),
            *(_spread(control.get(key)) for key in _SPREAD),
        ]
        for name, control in summary["controls"].items()
    ]
    level = f"Mean over seeds, with its {summary['level']}% interval over synsets."
    return bullets(summary.get("verdicts", ())) + table(header, rows) + paragraph(level, "note")


def _spread(spread: Mapping[str, Any] | None, signed: bool = False) -> str:
    if not spread:
        return "–"
    ends = spread.get("interval")
    interval = f" [{', '.join(number(end, 4, signed) for end in ends)}]" if ends else ""
    return number(spread["mean"], 4, signed) + interval
