"""A run's report as a page that a researcher would paste: Markdown from the dictionary of report.json, nothing else."""

from collections.abc import Mapping, Sequence

from modulant.reports import report_rows as say
from modulant.reports.report_rows import Report

FIGURE_TITLES = {
    "alpha": "α per layer over steps",
    "alpha_final": "Final α by layer and expert",
    "loss": "Loss",
    "relational": "Correlation with WordNet, and its lift",
    "bands": "Mean cosine by similarity band",
    "pentachoron": "CV of pentachoron volumes",
}


def markdown(report: Report) -> str:
    """The page; sections of what was not measured are left out."""
    sections = [
        f"# {say.title(report)}\n\n{say.ending(report)}".rstrip(),
        _section("Before → after", _headline(report)),
        _section("α per layer", _table_and(say.alphas(report["alpha"]), say.convergence(report["alpha"]))),
        _section("Populations", _table_and(say.populations(report["relational"]), say.intervals(report["relational"]))),
        _section("Figures", _figures(report["figures"])),
        _section("Read with care", "\n".join(f"- {line}" for line in say.caveats(report))),
        _section("What ran", _what_ran(report)),
        _section("Go on from here", _go_on(report)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, numbers to the right of the first column.

    >>> print(table(["layer", "α"], [["0", "0.01"]]))
    | layer | α |
    | --- | ---: |
    | 0 | 0.01 |
    """
    rules = ["---", *("---:" for _ in header[1:])]
    plain = [[cell.replace("|", "\\|").replace("\n", " ") for cell in cells] for cells in (header, *rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (plain[0], rules, *plain[1:]))


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _headline(report: Report) -> str:
    rows = say.headline(report)
    return _table_and((["", "before", "after", "change"], rows) if rows else None, say.baselines(report["relational"]))


def _table_and(content: say.Table | None, sentence: str) -> str:
    if content is None:
        return ""
    return table(*content) + (f"\n\n{sentence}" if sentence else "")


def _what_ran(report: Report) -> str:
    return table(["", ""], say.what_ran(report)).replace("| --- | ---: |", "| --- | --- |", 1)


def _figures(figures: Mapping[str, str]) -> str:
    return "\n\n".join(f"![{FIGURE_TITLES.get(name, name)}]({path})" for name, path in figures.items())


def _go_on(report: Report) -> str:
    run = report["run"]
    folder = run["folder"]
    lines = []
    if run["stage"] == "fit" and run["checkpoints"]:
        lines.append(f"- resume: `python train.py fit --config {folder}/config.yaml --resume {folder}`")
        lines.append(f"- measure again: `python train.py validate --config {folder}/config.yaml --resume {folder}`")
        lines.append(f"- newest checkpoint: `{run['checkpoints'][-1]}`, with its SHA-256 beside it")
    lines.append(f"- every logged figure: `{run['metrics_file']}`" if run["metrics_file"] else "")
    return "\n".join(line for line in lines if line)
