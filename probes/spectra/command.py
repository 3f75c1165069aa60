"""Series along a model's tokens: spectra, lag-1, phases between heads; and why there is no FFT over dimensions.

Each figure stands beside what it is with rows shuffled, with the text's tokens shuffled before the pass, and with
phases randomised.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.battery import described, folder_for, measured, publish
from probes.options import add_ending, add_layers, add_model, add_only
from probes.spectra import PARTS

DESCRIPTION = """\
Series along the tokens of a text, layer by layer, of any known family that reads text: spectrum and lag-1 of the
stream, and phases between the heads of a layer. Each stands beside what it is with its rows shuffled, with the text's
tokens shuffled before the pass, and with phases randomised. The FFT over dimensions is tested once, by permuting them.
The Zipf-wave lens is a prior of ours, and not the model's. Of a T5, encoder and decoder are read. Of a run, all is
measured before (original) and after (modulated)."""

EXAMPLES = """\
parts:
  lens        waves that we give to words, superposed by attention; five prompts
  dimensions  the permutation test of the FFT over dimensions
  tokens      spectrum and lag-1 along tokens
  heads       agreement of phases between heads, in three bands

examples:
  python probe.py spectra mini
  python probe.py spectra runs/lerp/version_0 --only tokens
  python probe.py spectra /path/to/llama --texts passages.txt --layers 0,15,29"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    what = "passages of at least 128 tokens, one a paragraph (default: examples of WordNet, joined)"
    parser.add_argument("--texts", type=Path, metavar="FILE", help=what)
    add_only(parser, PARTS)
    add_layers(parser)
    add_ending(parser, "all shuffles and draws", "spectra_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, report.md, report.html and the figures, print the page.

    Raises:
        ValueError: no such model, layer, file or device, or the disk refuses a file.
        KeyboardInterrupt: Ctrl-C, after what was measured until then is written.
    """
    folder = folder_for("spectra", [args.model], args.output)
    found = measure(args)
    from probes.spectra import page

    publish(folder, found, page.charts(found), page.content(found))
    if found["interrupted"]:
        raise KeyboardInterrupt
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that `report.json` holds.

    Raises:
        ValueError: no such model, layer, file or device, or a model that has no tokens.
        KeyboardInterrupt: before anything was measured.
    """
    started = time.monotonic()
    from modulant.backbones.sizes import check_layers
    from probes.findings import Findings
    from probes.opening import open_subject
    from probes.spectra.attention import some_layers
    from probes.spectra.dimensions import measure_contexts
    from probes.spectra.lens import measure_lens
    from probes.spectra.passes import stacks_of
    from probes.spectra.reading import measure_texts
    from probes.spectra.texts import passages_of

    subject = open_subject(args.model, args.device)
    backbone = subject.backbone
    layers = check_layers(args.layers, backbone.shape.n_layers, "--layers", "model")
    if backbone.family.reads != "input_ids":
        raise ValueError(f"{args.model!r} reads images: its patches lie in two directions, and are no series")
    if subject.tokenizer is None:
        raise ValueError(subject.no_tokenizer)
    beginning = described("spectra", args.model, backbone)  # which reads the weights whole: before a pass does
    found = Findings()
    passages = None
    more: dict[str, Any] = {"intervals": {}, "spectra": {}}
    along = [part for part in PARTS if part in args.only and part != "lens"]
    if along:
        passages = passages_of(backbone, subject.tokenizer, args.texts)

    def measure_one(cloud: str) -> None:
        for stack, one in stacks_of(backbone).items():
            n, prefix = one.shape.n_layers, f"{cloud}{stack}"
            own = list(range(n)) if args.layers is None else [layer for layer in layers if layer < n]
            chosen = some_layers(n) if args.layers is None else own
            if "lens" in args.only:
                measure_lens(one, subject.tokenizer, chosen, found, prefix, args.seed)
            if "dimensions" in args.only:
                measure_contexts(one, subject.tokenizer, chosen, found, f"{cloud}source/{stack}", args.seed)
            if passages is not None:
                measure_texts(one, passages, own, along, found, prefix, args.seed, more)

    def original() -> None:
        with subject.original():
            measure_one("original/")

    steps: list[Callable[[], None]] = [lambda: measure_one("")]
    if subject.modulation is not None:
        steps = [original, lambda: measure_one("modulated/")]
    interrupted = False
    try:
        for step in steps:
            step()
    except KeyboardInterrupt:
        if not found.figures:
            raise
        interrupted = True
    return {
        **beginning,
        "settings": {"only": list(args.only), "layers": layers, "seed": args.seed},
        "texts": None if passages is None else _texts_as_json(passages),
        **more,
        "interrupted": interrupted,
        **measured(found, backbone.model.device, started),
    }


def _texts_as_json(passages: Any) -> dict[str, Any]:
    lengths = [len(text.ids) for text in passages.texts]
    return {"what": passages.what, "tokens": lengths, "notes": list(passages.notes)}
