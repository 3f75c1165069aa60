"""A run's page again: from its folder alone, and with what came after it, such as the table of its controls."""

import argparse
from pathlib import Path

from modulant.reports.run.folder import metrics_of, report_of
from modulant.reports.run.page import of_folder
from modulant.storage import write_whole

DESCRIPTION = """\
Write report.html and report.md of run folders again from report.json, metrics.csv and config.yaml: for a run that is
older than the page, for one whose predictions.jsonl came later, or with the table of a probe.py controls in it."""
EXAMPLES = """\
A run inside a controls' folder gets that folder's table without the option. An evaluation in the same folder
(report_validate.json, report_test.json) gets its page too.

examples:
  python probe.py report runs/field/version_0
  python probe.py report runs/lerp/version_0 --controls runs/controls/lerp"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, as train.py leaves it")
    parser.add_argument("--controls", type=Path, default=None, metavar="DIR", help="what probe.py controls has left")


def main(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        ValueError: a folder is no run's, or `--controls` holds no figures.
    """
    for run in args.runs:
        for page in write_pages(run, args.controls):
            print(page)
    return 0


def write_pages(run: Path, controls: Path | None) -> list[Path]:
    """Write the pages of a run and of its evaluations again.

    Args:
        controls: what probe.py controls has left; None: beside or inside of the run, if there is something.
    """
    pages = []
    evaluations = [name for name in ("report_validate", "report_test") if (run / f"{name}.json").is_file()]
    for name in ("report", *evaluations):
        report = report_of(run, f"{name}.json")
        texts = of_folder(run, report, metrics_of(run, report), controls)
        for end, text in zip(("md", "html"), texts, strict=True):
            pages.append(run / f"{name}.{end}")
            write_whole(pages[-1], text)
    return pages
