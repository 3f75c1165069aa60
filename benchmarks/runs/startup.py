"""How long a run takes to begin, beside importing the libraries that it cannot do without.

Each turn starts fresh processes: one that imports torch, lightning and transformers and ends; `train.py fit --config
field.yaml`, which is ended as its first step begins; and `train.py fit --help`. WordNet and its tokens are in the
cache, as they are after the first run. So are the figures of the untrained model, which precede the first step; in the
second row they are not, and measuring them is work and not start-up. Time is the processor's, user and system.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import ROOT, Row, ratio
from modulant.storage import cache_folder

ASKED, ASKED_HELP = 1.5, 2.0

ABOUT = """\
Time from process start, beside importing torch, lightning and transformers alone.

- **Setup.** Fresh processes, files in the page cache; processor time, user and system.
- **The first step** comes after figures of the untrained model, which are read from the cache after a run has measured
  them: they follow from weights, tokenizer, WordNet and code alone. The second row measures them anew."""

_IMPORTS = "import torch, lightning, transformers"
_RUN = """
import os, sys
import train
from cli.running.run import ModulantCLI
built = ModulantCLI._run_subcommand
def _run_subcommand(self, subcommand):
    from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
    def advance(self, *args):
        sys.stdout.flush()
        os._exit(0)
    _TrainingEpochLoop.advance = advance
    built(self, subcommand)
ModulantCLI._run_subcommand = _run_subcommand
train.main(sys.argv[1:])
"""


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / the imports."""
    imports, steps, measured, helps = (list[float]() for _ in range(4))
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 if quick else 4):
            times = (
                _python("-c", _IMPORTS),
                _to_first_step(Path(folder) / f"{turn}_anew", _without_figures(Path(folder) / f"cache_{turn}")),
                _to_first_step(Path(folder) / str(turn)),
                _python("train.py", "fit", "--help"),
            )
            if turn or quick:  # the first fills the caches
                for found, seconds in zip((imports, measured, steps, helps), times, strict=True):
                    found.append(seconds)
    rows = [
        _row("`fit --config field.yaml`: to its first batch, which is its first step's", steps, imports, f"≤ {ASKED}"),
        _row("the same: to its first step, the untrained model measured anew", measured, imports, ""),
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


def _without_figures(folder: Path) -> Path:
    """A cache that holds WordNet and its tokens alone."""
    folder.mkdir()
    for file in cache_folder().glob("*.npz"):
        if file.name.startswith(("wordnet-", "corpus-")):
            shutil.copy(file, folder)
    return folder


def _to_first_step(folder: Path, cache: Path | None = None) -> float:
    words = ["fit", "--config", "field.yaml", "--output", str(folder), "--trainer.max_steps", "1"]
    return _python("-c", _RUN, *words, cache=cache)


def _python(*words: str, cache: Path | None = None) -> float:
    """Processor seconds of a process."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | ({} if cache is None else {"MODULANT_CACHE": str(cache)})
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # our own modules would be compiled at each start
    before = _seconds()
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"error: {' '.join(words[-6:])}: {done.stderr.strip().splitlines()[-1]}")
    return _seconds() - before


def _seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
