"""Everything worth measuring on a GPU, in one call of under eight minutes: a table in Markdown and JSON.

  make test-gpu                                    first: whether it is right there

  python -m benchmarks.gpu --out DIR               without --out: $OUT, or the working folder
  python -m benchmarks.gpu --device cpu --quick    all of it that a CPU can run, on a model that takes no time

Each part stands alone: one that fails, or takes longer than it may, leaves a line that says so behind the rows that it
had measured, and what was measured before it is already written. It needs torch, transformers, lightning and the
checkout: no WordNet (lengths are drawn like the definitions'), no command line of ours.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.parts import PARTS, measured, names_of_parts
from benchmarks.gpu.setting import Setting
from benchmarks.harness import Row, differing, table
from modulant.storage import write_whole

BUDGET = 450  # seconds for all of it


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a result differed from the plain way's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder of the two files")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a look at the code")
    parser.add_argument("--quick", action="store_true", help="a model of two layers that takes no time")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts together")
    parser.add_argument("--parts", metavar="NAME,NAME,…", help=f"only these of {', '.join(names_of_parts())}")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "error: --device cuda: torch sees no GPU here; --device cpu --quick shows what would run", file=sys.stderr
        )
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    head = f"{name}, torch {torch.__version__}, {'quick' if arguments.quick else 'whole'}"
    asked = arguments.parts.split(",") if arguments.parts else names_of_parts()
    if unknown := [name for name in asked if name not in names_of_parts()]:
        print(f"error: --parts: no {unknown[0]!r}; there are {', '.join(names_of_parts())}", file=sys.stderr)
        return 2
    began, rows = time.monotonic(), list[Row]()
    chosen = [part for part in PARTS if part.name in asked]
    parts = [(part, shape) for part in chosen for shape in part.shapes]
    if arguments.quick:
        parts = [(part, "tiny") for part in {part.name: part for part in chosen}.values()]
    for part, shape in parts:
        left = arguments.budget - (time.monotonic() - began)
        new = measured(part, Setting(device, arguments.quick, shape), left)
        rows += new
        print(table(new), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        took = time.monotonic() - began
        arguments.out.mkdir(parents=True, exist_ok=True)
        about = {"device": head, "seconds": round(took, 1), "rows": rows}
        write_whole(arguments.out / "gpu.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        write_whole(arguments.out / "gpu.md", f"{head}; {took:.0f} s\n\n{table(rows)}\n")
    return 1 if differing(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
