"""Several runs side by side: what was set differently, what came of it, and which differences are beyond chance."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modulant.reports.drawing.plotting import save
from modulant.storage import write_whole
from probes.options import readable
from probes.pages import check_output, write_json, write_text

DESCRIPTION = """\
Compare run folders: the settings in which they differ, loss, exact match, lift by population with its 95% interval,
paired differences from the first run, alpha, CV, preservation, time; as a table, and overlaid over steps."""
EXAMPLES = """\
OUTPUT gets runs.md, runs.csv, runs.json, runs.png, and runs.html with the same charts to look into. A folder that holds
no report is named and passed over. The first run is what the others are compared with, however the rows are sorted.

examples:
  python probe.py runs runs/*/*
  python probe.py runs runs/field/version_0 runs/lerp/version_0 --sort lift --output runs/compared"""

# Name for --sort → figure, and whether the largest comes first.
SORTS = {
    "loss": ("validation_loss", False),
    "lift": ("pearson_lift/held_out", True),
    "alpha": ("alpha", True),
    "preservation": ("preservation", True),
    "time": ("seconds", False),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="run folders, as train.py leaves them")
    add("--sort", choices=("given", "name", *SORTS), default="given", help="order of the rows (%(default)s)")
    add("--output", type=Path, default=Path("runs", "probes", "runs"), metavar="DIR", help="OUTPUT (%(default)s)")


def main(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        ValueError: none of the folders is a run's.
    """
    check_output("runs", args.output)
    from probes.runs.measure import compare, read

    runs, passed_over = readable(args.runs, read, "a run's; name some, such as runs/field/version_0")
    for run, name in zip(runs, names([run.folder for run in runs]), strict=True):
        run.name = name
    found = compare(runs) | {"passed_over": passed_over}
    found["runs"] = ordered(found["runs"], args.sort)
    _leave(args.output, runs, found)
    return 0


def names(folders: Sequence[Path]) -> list[str]:
    """Folders without what all of them begin with.

    >>> names([Path("/r/field/version_0"), Path("/r/lerp/version_0")]), names([Path("/r/field/version_0")])
    (['field/version_0', 'lerp/version_0'], ['field/version_0'])
    """
    paths = [folder.resolve() for folder in folders]
    common = os.path.commonpath([path.parent for path in paths]) if len(paths) > 1 else str(paths[0].parent.parent)
    return [path.relative_to(common).as_posix() for path in paths]


def ordered(rows: list[dict[str, Any]], by: str) -> list[dict[str, Any]]:
    """Rows by a figure, those without it last."""
    if by == "given":
        return rows
    if by == "name":
        return sorted(rows, key=lambda row: str(row["name"]))
    key, largest_first = SORTS[by]

    def place(row: dict[str, Any]) -> tuple[bool, float]:
        value = row["figures"].get(key)
        return value is None, 0.0 if value is None else -value if largest_first else value

    return sorted(rows, key=place)


def _leave(output: Path, runs: Sequence[Any], found: dict[str, Any]) -> None:
    from probes.runs import charts, table

    write_json(output / "runs.json", found)
    write_text(output / "runs.csv", table.as_csv(found))
    figure = charts.overlay(runs, found)
    if figure is not None:
        save(figure, output / "runs.png")
    write_text(output / "runs.md", table.markdown(found, "runs.png" if figure else ""))
    write_whole(output / "runs.html", charts.html(runs, found))
    print(table.markdown(found))
    print(f"written: {output}/runs.md, runs.csv, runs.json, runs.html{', runs.png' if figure is not None else ''}")
