"""Runs the benchmarks, writes docs/results/benchmarks.md: `python -m benchmarks` (`make bench`); `--quick` for a look.

A speed here is a ratio against the plain way, both measured in one run, with the results compared in the same run.
Absolute times are this machine's, and show what the ratio is made of. `--only NAME` replaces that section; `--page`
writes the page anew from the tables in it.
"""

import argparse
import importlib
import os
import platform
import sys
import time
from collections.abc import Sequence

from benchmarks.harness import ROOT, Row, differing, table
from benchmarks.page import PAGE, TITLES, file_of, write_page


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if a result differed from the plain way's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, for a look; writes no page")
    parser.add_argument("--only", choices=list(TITLES), action="append", help="this one (may be repeated)")
    parser.add_argument("--page", action="store_true", help="measure nothing; write the page from its own tables")
    arguments = parser.parse_args(argv)
    if arguments.page:
        write_page({})
        return 0
    wrong: list[str] = []
    for name in arguments.only or TITLES:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.{file_of(name).parent.name}.{name}")
        rows: list[Row] = module.run(quick=arguments.quick)
        wrong += differing(rows)
        print(table(rows), flush=True)
        if not arguments.quick:
            head = f"`python -m benchmarks --only {name}`: {machine()}; {time.monotonic() - began:.0f} s."
            write_page({name: (head, rows)})
            print(f"wrote {PAGE.relative_to(ROOT)}: {TITLES[name]}", flush=True)
    for what in wrong:
        print(f"error: {what}: the results differ", file=sys.stderr)
    return 1 if wrong else 0


def machine() -> str:
    """Where a section was measured."""
    import torch

    where = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        where = f"{torch.cuda.get_device_name()}, {where}"
    return f"{where}, Python {platform.python_version()}, torch {torch.__version__.partition('+')[0]}"


if __name__ == "__main__":
    sys.exit(main())
