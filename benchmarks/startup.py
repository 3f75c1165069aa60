"""How long a run takes to begin, beside importing the libraries that it cannot do without.

Each turn starts fresh processes: one that imports torch, lightning and transformers and ends; `train.py fit --config
field.yaml`, which is ended as its first step begins; and `train.py fit --help`. WordNet and its tokens are in the
cache, as they are after the first run. The untrained model is measured before the first step (held-out answers, all
pairs of WordNet, two baselines), which is work and not start-up: so the time at which that begins is a row of its own.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.harness import Row, ratio

ROOT = Path(__file__).resolve().parents[1]
ASKED, ASKED_HELP = 1.5, 2.0

ABOUT = """\
Time from process start, beside importing torch, lightning and transformers alone.

- **Setup.** Fresh processes, files in the page cache.
- **The first batch** is the first one that the model reads: of the measurement of the untrained model.
- **The first step** comes after that measurement."""

_IMPORTS = "import torch, lightning, transformers"
_RUN = """
import os, sys, time
import train
words = sys.argv[1:]
from cli.command import read_command
read_command(words)
import modulators.training.frozen.t5 as frozen
plain = frozen.FrozenT5.forward
def forward(self, *args, **kwargs):
    frozen.FrozenT5.forward = plain
    print("first batch", time.time(), flush=True)
    return plain(self, *args, **kwargs)
frozen.FrozenT5.forward = forward
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
def advance(self, *args):
    print("first step", time.time(), flush=True)
    os._exit(0)
_TrainingEpochLoop.advance = advance
train.main(words)
"""


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / the imports."""
    imports, batches, steps, helps = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 if quick else 4):
            began = perf_counter()
            _python("-c", _IMPORTS)
            imported = perf_counter() - began
            first_batch, first_step = _first(Path(folder) / str(turn))
            began = perf_counter()
            _python("train.py", "fit", "--help")
            helped = perf_counter() - began
            if turn or quick:  # the first fills the caches
                imports.append(imported)
                batches.append(first_batch)
                steps.append(first_step)
                helps.append(helped)
    rows = [
        _row("`fit --config field.yaml`: to its first batch", batches, imports, f"≤ {ASKED}"),
        _row("the same: to its first step, after the measurement before training", steps, imports, ""),
    ]
    return [*rows, {**_row("`fit --help`", helps, imports, f"≤ {ASKED_HELP:.0f} s")}]


def _row(what: str, ours: Sequence[float], imports: Sequence[float], asked: str) -> Row:
    middle = sorted(ours)[len(ours) // 2], sorted(imports)[len(imports) // 2]
    return {
        "what": what,
        "ours": f"{middle[0]:.2f} s",
        "plain": f"{middle[1]:.2f} s",
        "ratio": ratio(ours, imports),
        "asked": asked,
        "parity": "",
    }


def _first(folder: Path) -> tuple[float, float]:
    """Seconds from the start of a run to its first batch and its first step."""
    import time

    began = time.time()
    words = ["fit", "--config", "field.yaml", "--output", str(folder), "--trainer.max_steps", "1"]
    said = _python("-c", _RUN, *words)
    times: dict[str, Any] = {}
    for line in said.splitlines():
        if line.startswith(("first batch ", "first step ")):
            name, _, text = line.rpartition(" ")
            times[name] = float(text) - began
    return times["first batch"], times["first step"]


def _python(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words[-6:])}: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout
