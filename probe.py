"""The measurement command line: one subcommand a probe.

    python probe.py --help
    python probe.py controls --config lerp.yaml --seeds 0,1,2

A probe is a module of `probes` with ``add_arguments(parser)`` and ``main(args) -> int``, imported when it is asked for
and only then: this page and a mistyped word cost nothing. To add one, add its line to `PROBES`.
"""

import argparse
import difflib
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from cli.help import say

# Name → what it is for, in a line. The module is probes.<name>, or probes.<name>.command of a folder.
PROBES = {
    "controls": "train a modulator and its controls over several seeds: one table, one figure",
    "stability": "how much a sampled figure moves between seeds of sampling: mean ± sd [min, max]",
    "runs": "several run folders side by side: what differs, what came of it, paired differences, overlays",
    "similarity": "agreement with people's ratings of word pairs, before and after a modulator",
    "topology": "weights of any transformer: ranks, heads, neurons, likeness of layers, each beside its null",
    "spectra": "series along tokens: spectra, lag-1, phases of heads, each beside its nulls",
    "attention": "entropies, sinks and heads of attention by layer, a lens, confidence; each beside its null",
    "scales": "what two vocabularies share: rotations, linear maps, neighbours on held-out rows, each beside its null",
    "waveforms": "a wave language model: harmonics, fringes, stability, use of its parts, beside nulls; a film",
    "compare": "figures of batteries by model, each beside its null, and ten published claims judged by them",
    "terrain": "geometry of a vocabulary and of the stream layer by layer, each figure beside its null",
    "report": "write a run's report.html again from its folder, with the table of its controls",
    "talk": "ask the original and the modulated model of a run, an artefact or a hub id, side by side",
    "contract": "does a modulator, yours or ours, keep what every modulator promises?",
    "waves": "does a part of the wave language model do anything? arms at equal tuning, effects with intervals",
    "search": "search settings by a sweep file, with Optuna, without an account",
    "dashboard": "a Weights & Biases workspace with the charts that a run is read by",
    "memory": "what training takes on each device, by strategy, for any T5 by its name: no weights, no network",
    "alignment": "relational figures of any encoder over the whole population, beside the same one untrained",
}
INTERRUPTED = 128 + signal.SIGINT

PAGE = """\
usage: python probe.py {{{names}}} [options]

{lines}

examples:
  python probe.py controls --config lerp.yaml --seeds 0,1,2
  python probe.py controls --config field.yaml --controls fixed_alpha,lora --trainer.max_epochs 3
  python probe.py runs runs/*/* --sort lift
  python probe.py talk runs/field/version_0/modulator --prompt "a small dog"
  python probe.py controls --help

exit codes:
  0    done
  1    a run or a measurement failed
  2    an error in the command line, one line on standard error
  130  ended by Ctrl-C"""


class Parser(argparse.ArgumentParser):
    """Raises an error instead of printing it under a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 2 for an error in it, else the probe's own."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<12} {what}" for name, what in PROBES.items())
        say(PAGE.format(names=",".join(PROBES), lines=lines))
        return 0
    try:
        return _run(words)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(words: list[str]) -> int:
    name = words[0] if words else ""
    if name not in PROBES:
        said = f"{name!r} is not a probe" if name else "a probe is missing"
        near = difflib.get_close_matches(name, PROBES, n=1)
        raise ValueError(f"{said}; it must be one of {', '.join(PROBES)}{f'; did you mean {near[0]}?' if near else ''}")
    folder = (Path(__file__).resolve().parent / "probes" / name).is_dir()
    module = import_module(f"probes.{name}.command" if folder else f"probes.{name}")
    parser = Parser(
        prog=f"python probe.py {name}",
        description=getattr(module, "DESCRIPTION", PROBES[name]),
        epilog=getattr(module, "EXAMPLES", None),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    args, rest = parser.parse_known_args(words[1:])
    if getattr(module, "PASSES_ON", False):  # options that are not its own go to the runs that it starts
        args.options = rest
    elif rest:
        known = [option for action in parser._actions for option in action.option_strings]
        near = difflib.get_close_matches(rest[0].partition("=")[0], known, n=1)
        raise ValueError(f"{rest[0]!r} is not an option{f'; did you mean {near[0]}?' if near else ''}")
    return int(module.main(args))


if __name__ == "__main__":
    sys.exit(main())
