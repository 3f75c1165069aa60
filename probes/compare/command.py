"""Batteries side by side: figures of several models, each beside its null, and what known claims come to.

A claim's verdict is computed from the reports, with its numbers; nothing is measured here.
"""

import argparse
from pathlib import Path
from typing import Any

from probes.options import readable
from probes.pages import check_output_file, write_json, write_text

DESCRIPTION = """\
Read the reports of batteries (terrain, topology, scales, attention, spectra) of one or several models: one table of
figures by model, each with its null; a chart of each; and a table of ten published claims about such figures, each with
the source's own figure as measured here, its null, and what follows: that the figure comes of something simpler or is
nothing beyond its null, that it holds beyond its null, or that it was not measured."""

EXAMPLES = """\
A folder that holds no report of a battery is named and passed over.

examples:
  python probe.py compare runs/probes/terrain_mini runs/probes/topology_mini
  python probe.py compare runs/probes/* --all --output runs/compared"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="DIR", help="output folders of batteries")
    add("--all", action="store_true", help="every figure that all models have, instead of those a battery is read by")
    add("--output", type=Path, default=Path("runs", "probes", "compare"), metavar="DIR", help="default: %(default)s")


def main(args: argparse.Namespace) -> int:
    """Read, write report.json, report.md, report.html and the figures, and print the page.

    Raises:
        ValueError: no folder holds a report, two hold the same, or the disk refuses a file.
    """
    check_output_file(args.output / "report.json", ("probe", "claims"))
    from modulant.reports.drawing.figures import draw
    from modulant.reports.drawing.plotting import save
    from probes.compare import page

    found = compare(args.folders, args.all)
    charts = page.charts(found)
    text = page.markdown(found, list(charts))
    write_json(args.output / "report.json", found)
    write_text(args.output / "report.md", text)
    write_text(args.output / "report.html", page.html(found, [chart for some in charts.values() for chart in some]))
    for battery, some in charts.items():
        save(draw(some, across=3), args.output / "figures" / f"{battery}.png")
    print(text)
    print(f"written: {args.output}/report.json, report.md, report.html, figures/")
    return 0


def compare(folders: list[Path], everything: bool = False) -> dict[str, Any]:
    """What report.json holds.

    Raises:
        ValueError: as of `main`.
    """
    from probes.compare.claims import CLAIMS
    from probes.compare.headline import figures_of
    from probes.compare.reading import by_model, read

    wanted = "an output of a battery, such as runs/probes/terrain_mini"
    reports, passed_over = readable(folders, read, wanted)
    models = by_model(reports)
    alone = [model for model in models if set(model.reports) != {"scales"}]  # a pair of models makes no claim
    return {
        "probe": "compare",
        "models": [model.name for model in models],
        "reports": [{"probe": r.probe, "model": r.model, "folder": str(r.folder), "sha256": r.sha256} for r in reports],
        "passed_over": passed_over,
        "all": everything,
        "batteries": figures_of(models, everything),
        "claims": [
            {"claim": claim.name, "says": claim.says, "model": model.name, **claim.verdict(model).as_json()}
            for claim in CLAIMS
            for model in alone
        ],
    }
