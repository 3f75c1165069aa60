"""Runs every benchmark and writes docs/benchmarks.md: `python -m benchmarks` (`make bench`); `--quick` for a look.

A speed here is a ratio against the plain way, both measured in one run, with the results compared in the same run.
Absolute times are this machine's, and are there to show what the ratio is made of.
"""

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
TITLES = {
    "relations": "WordNet relations, against NLTK",
    "evaluation": "Evaluation over all pairs, against its own cosine products",
    "pentachora": "Pentachora, against a determinant loop and batched determinants",
    "fuse": "A fused LERP, against the plain one",
}
COLUMNS = ("what", "ours", "plain", "ratio", "asked", "parity")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if a result differed from the plain way's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, for a look; writes no page")
    parser.add_argument("--only", choices=list(TITLES), action="append", help="this one (may be repeated)")
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(PAGE.parents[1]))
    began = time.monotonic()
    sections, wrong = [], []
    for name in arguments.only or TITLES:
        print(f"== {name}", flush=True)
        rows: list[dict[str, Any]] = importlib.import_module(f"benchmarks.{name}").run(quick=arguments.quick)
        sections.append(f"## {TITLES[name]}\n\n`python benchmarks/{name}.py`\n\n{table(rows)}")
        wrong += [row["what"] for row in rows if "differ" in str(row["parity"])]
        print(table(rows), flush=True)
    if not arguments.quick and not arguments.only:
        PAGE.write_text(page(sections, time.monotonic() - began), encoding="utf-8")
        print(f"wrote {PAGE}")
    for what in wrong:
        print(f"error: {what}: the results differ", file=sys.stderr)
    return 1 if wrong else 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    header = f"| {' | '.join(COLUMNS)} |\n| --- |{' ---: |' * 4} --- |"
    return "\n".join([header, *(f"| {' | '.join(str(row[column]) for column in COLUMNS)} |" for row in rows)])


def page(sections: Sequence[str], seconds: float) -> str:
    """The whole page."""
    import numba
    import numpy
    import torch

    versions = f"torch {torch.__version__.partition('+')[0]}, NumPy {numpy.__version__}, numba {numba.__version__}"
    intro = (
        "# Benchmarks\n\n"
        "Written by `make bench`: each ratio is against the plain way, measured in the same run, and each row's "
        "results were compared in that run. Ratios are what another machine should see again; times are this one's.\n\n"
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, {versions}; {seconds:.0f} s in all.\n"
    )
    return "\n\n".join([intro.rstrip(), *sections]) + "\n"


if __name__ == "__main__":
    sys.exit(main())
