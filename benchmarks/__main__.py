"""Runs the benchmarks and writes docs/benchmarks.md: `python -m benchmarks` (`make bench`); `--quick` for a look.

A speed here is a ratio against the plain way, both measured in one run, with the results compared in the same run.
Absolute times are this machine's, and are there to show what the ratio is made of. `--only NAME` replaces that section.
"""

import argparse
import importlib
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Row, differing, table
from modulant.storage import write_whole

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
TITLES = {
    "step": "A training step, and where its time goes",
    "field_gates": "The field's gates, against LoRA of their size",
    "attached": "On other families, against their forward pass and full fine-tuning",
    "sentences": "A SentenceTransformer's encode, against the base's",
    "cached": "Cached lower layers, against full fine-tuning",
    "batches": "Batches: real tokens, shapes",
    "loop": "Lightning's Trainer, against a bare loop",
    "wire": "Bytes on the wire, against plain DistributedDataParallel",
    "growth": "How cost grows",
    "startup": "Start-up, beside importing the libraries",
    "relations": "WordNet relations, against NLTK",
    "evaluation": "Evaluation over all pairs, against its own cosine products",
    "pentachora": "Pentachora, against a determinant loop and batched determinants",
    "waves": "Wave language models, against RoPE",
    "batteries": "Terrain and topology, against the plain way to each figure",
}
INTRO = """\
# Benchmarks

Written by `make bench`: each ratio is against the plain way, measured in the same run, and each row's results were \
compared in that run. Ratios are what another machine should see again; times are this one's. Where a row has a limit, \
it is under "asked", met or not. For a GPU there is `python benchmarks/gpu.py \
--out DIR`, one call that leaves a table with the device's name \
([what was seen](howto/fast.md#what-was-seen-on-a-gpu)). What a fused LERP and packed batches gain was measured once, \
and is settled: [findings](findings.md#fusing-lerp)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0; 1 if a result differed from the plain way's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, for a look; writes no page")
    parser.add_argument("--only", choices=list(TITLES), action="append", help="this one (may be repeated)")
    arguments = parser.parse_args(argv)
    wrong: list[str] = []
    for name in arguments.only or TITLES:
        print(f"== {name}", flush=True)
        began = time.monotonic()
        module = importlib.import_module(f"benchmarks.{name}")
        rows: list[Row] = module.run(quick=arguments.quick)
        wrong += differing(rows)
        print(table(rows), flush=True)
        if not arguments.quick:
            about = str(getattr(module, "ABOUT", "")).strip()
            head = [f"`python -m benchmarks --only {name}`: {machine()}; {time.monotonic() - began:.0f} s.", about]
            write_section(name, "\n\n".join([*filter(None, head), table(rows)]))
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


def write_section(name: str, text: str) -> None:
    """Put a section into the page, in the order of `TITLES`, in the place of an older one."""
    old = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    sections = dict(re.findall(r"^## (.+)\n\n((?:(?!^## ).*\n?)*)", old, flags=re.MULTILINE))
    sections[TITLES[name]] = text
    parts = [f"## {title}\n\n{sections[title].strip()}" for title in TITLES.values() if title in sections]
    write_whole(PAGE, "\n\n".join([INTRO, *parts]) + "\n")
    print(f"wrote {PAGE.relative_to(ROOT)}: {TITLES[name]}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
