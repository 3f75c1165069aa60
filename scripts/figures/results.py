"""Draws the figures of docs/results/faults.md and docs/results/claims.md from the tables of these pages.

python scripts/figures/results.py
"""

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from modulant.reports.drawing.plotting import BLUE, GREEN, INK, ORANGE, VERMILION, dress, save

ROOT = Path(__file__).resolve().parents[2]
RESULTS, FIGURES = ROOT / "docs" / "results", ROOT / "docs" / "figures"
LEVEL = 0.005  # a claim holds below it


def main() -> int:
    """Draw both; 0."""
    for name, draw in (("faults", faults_figure), ("claims", claims_figure)):
        page = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
        print(f"wrote {save(draw(page), FIGURES / f'{name}.png').relative_to(ROOT)}")
    return 0


def rows_of(page: str, *columns: str) -> list[list[str]]:
    """The cells of the table whose first columns are named so."""
    header = r"^\| " + r" \| ".join(map(re.escape, columns)) + r" \|.*\n\|.*\n((?:\|.*\n)+)"
    found = re.search(header, page, flags=re.MULTILINE)
    if found is None:
        raise ValueError(f"no table with the columns {', '.join(columns)}")
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines()]


def faults_figure(page: str) -> Figure:
    """Tried and survived by kind of fault; a bar that is not filled to its end has lost runs."""
    rows = rows_of(page, "fault", "tried", "survived", "lost")
    names = [name.replace("`", "") for name, *_ in rows]
    tried, survived = ([int(row[column]) for row in rows] for column in (1, 2))
    figure = Figure(figsize=(9.2, 0.29 * len(rows) + 1), layout="constrained")
    axis = figure.subplots()
    axis.barh(names, tried, color="white", edgecolor=VERMILION, linewidth=1.2, height=0.62)
    axis.barh(names, survived, color=BLUE, edgecolor=BLUE, linewidth=1.2, height=0.62)
    for y, (few, many) in enumerate(zip(survived, tried, strict=True)):
        axis.annotate(f"{few} of {many}", (many, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axis.set_xscale("log")
    axis.set_xlim(0.8, 2.5 * max(tried))
    axis.set_ylim(len(rows) - 0.4, -0.6)
    dress(axis, "Faults survived, of those tried", "faults tried", "", grid="x")
    axis.tick_params(axis="y", labelsize=9)
    return figure


def claims_figure(page: str) -> Figure:
    """p of each claim that has one, a mark a model, beside the level below which a claim holds."""
    rows = rows_of(page, "claim", "null")
    rows = [row for row in rows if any(row[2:])]
    models: Sequence[tuple[str, str, str]] = (
        ("mini", GREEN, "o"),
        ("all-MiniLM", BLUE, "s"),
        ("SmolLM2", ORANGE, "^"),
    )
    figure = Figure(figsize=(8.6, 0.42 * len(rows) + 1.5), layout="constrained")
    axis = figure.subplots()
    axis.set_xscale("log")
    for column, (name, colour, mark) in enumerate(models, 2):
        points = [(float(row[column]), y) for y, row in enumerate(rows) if row[column]]
        shift = 0.13 * (column - 3)  # equal values stand beside each other
        axis.plot([x for x, _ in points], [y + shift for _, y in points], mark, color=colour, label=name, markersize=7)
    axis.axvline(LEVEL, color=INK, linewidth=1.2)
    axis.annotate(f"holds below {LEVEL}", (LEVEL, -0.5), (-6, 3), textcoords="offset points", ha="right", fontsize=9)
    axis.set_yticks(range(len(rows)), [row[0] for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    dress(axis, "", "p beside the claim's null", "", grid="x")
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main())
