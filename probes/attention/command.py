"""Attention by layer and head: entropies with and without the sink, how much heads differ, a logit lens, confidence.

What has been read into attention's entropy and "phase" follows from the first token's share, from a text's length, or
from what uniform attention gives as well. So all of that is measured beside it, in every run.
"""

import argparse
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.battery import described, folder_for, measured, publish
from probes.options import add_ending, add_layers, add_model, add_only

if TYPE_CHECKING:
    from probes.attention.shown import Shown

DESCRIPTION = """\
Attention of any known family, layer by layer: entropy as a share of uniform attention's, with and without the first
token (the sink), distances, divergence of heads, the logit lens, and whether any of it goes with how sure the model is
of the next token, or of one that is masked; published figures (coherence, phase, synchrony, collapse) beside attention
that says nothing. Of a run, before (original) and after (modulated)."""

EXAMPLES = """\
Texts: 120 examples of WordNet, or the lines of --texts, or --prompt alone; and fifteen prompts with which such figures
were published. At least 100 texts are needed to say anything of confidence.

examples:
  python probe.py attention mini
  python probe.py attention runs/lerp/version_0 --only layers,collapse
  python probe.py attention all-MiniLM-L6-v2 --texts sentences.txt --output runs/probes/minilm
  python probe.py attention /path/to/llama --prompt "The capital of France is" """

PARTS = ("layers", "collapse", "lens", "confidence", "controls")
INTERRUPTED = 130
SMALL = 128  # tokens of a text whose whole attention is written


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    texts = parser.add_mutually_exclusive_group()
    texts.add_argument("--texts", type=Path, metavar="FILE", help="one text a line (default: 120 examples of WordNet)")
    texts.add_argument("--prompt", metavar="TEXT", help="measure this text alone, and write its attention")
    add_only(parser, PARTS)
    add_layers(parser, "layers")
    add_ending(parser, "all draws", "attention_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, report.md, report.html, the figures and attention.npz, print the page.

    Returns:
        0; 130 where Ctrl-C ended it after some texts were measured, which are written.

    Raises:
        ValueError: no such model, layer, device or file, or the disk refuses a file.
    """
    folder = folder_for("attention", [args.model], args.output)
    found, shown = measure(args)
    from probes.attention import page

    if shown is not None:
        shown.write(folder / "attention.npz")
    more = ", attention.npz" if shown is not None else ""
    publish(folder, found, page.charts(found), page.content(found), more)
    return INTERRUPTED if found["interrupted"] else 0


def measure(args: argparse.Namespace) -> tuple[dict[str, Any], "Shown | None"]:
    """What `report.json` holds, and one text's whole attention.

    Raises:
        ValueError: as of `main`.
    """
    started = time.monotonic()
    from modulant.backbones.sizes import check_layers
    from probes.attention.figures import Found
    from probes.attention.shown import shown_text
    from probes.attention.texts import sets_of
    from probes.opening import open_subject

    subject = open_subject(args.model, args.device, with_head=True)
    backbone = subject.backbone
    layers = check_layers(args.layers, backbone.shape.n_layers, "--layers", "model")
    if subject.tokenizer is None and backbone.family.reads == "input_ids":
        raise ValueError(subject.no_tokenizer)
    sets = sets_of(subject, args.texts, args.prompt, args.seed, controls="controls" in args.only)
    passes, interrupted = _passes(args, subject, layers, sets)
    found = Found()
    more = _assemble(args, passes, sets, layers, found)
    shown = None
    if sets.shown and not interrupted and sets.shown[0].inputs.shape[1] <= SMALL:
        shown = shown_text(subject, sets.shown[0], layers)
        more["curves"]["text"] = shown.curve()
    beginning = described("attention", args.model, backbone)
    beginning["shape"] |= {"heads": backbone.shape.n_heads, "key_value_heads": backbone.shape.n_kv_heads}
    return {
        **beginning,
        "settings": {
            "only": list(args.only),
            "layers": layers,
            "seed": args.seed,
            "texts": sum(len(batch.index) for batch in sets.texts),
            "prompt": args.prompt,
        },
        "inputs": sets.what,
        "interrupted": interrupted,
        **more,
        "intervals": found.intervals,
        **measured(found, backbone.model.device, started),
    }, shown


def _passes(args: argparse.Namespace, subject: Any, layers: list[int], sets: Any) -> tuple[dict[str, Any], bool]:
    """Cloud and set of texts → what was read; and whether Ctrl-C ended it."""
    from probes.attention.measure import measure_noise, measure_pass

    clouds = {"": nullcontext} if subject.modulation is None else {"original/": subject.original}
    clouds |= {} if subject.modulation is None else {"modulated/": nullcontext}
    found: dict[str, Any] = {}
    try:
        for cloud, context in clouds.items():
            for name in ("texts", "prompts", "shuffled"):
                if batches := getattr(sets, name):
                    with context():
                        label = f"{cloud}{name}"
                        read = measure_pass(
                            subject.backbone, batches, layers, args.seed, label, sets.unigram, name == "texts"
                        )
                    if name == "texts" and "controls" in args.only:
                        measure_noise(read.stacks[""], batches, args.seed)
                    found[cloud + name] = read
    except KeyboardInterrupt:
        if not found:
            raise
        return found, True
    return found, False


def _assemble(
    args: argparse.Namespace, passes: Mapping[str, Any], sets: Any, layers: list[int], found: Any
) -> dict[str, Any]:
    """Figures of what was read; returns what is not a figure."""
    from probes.attention import figures
    from probes.attention.confidence import add_confidence

    only, seed = set(args.only), args.seed
    curves: dict[str, Any] = {}
    confidence: dict[str, Any] = {}
    lens: dict[str, Any] = {}
    for cloud in ("", "original/", "modulated/"):
        if (read := passes.get(f"{cloud}texts")) is None:
            continue
        prompts, shuffled = passes.get(f"{cloud}prompts"), passes.get(f"{cloud}shuffled")
        counts = figures.counts_of(len(read.lengths), seed)
        few = None if prompts is None else figures.counts_of(len(prompts.lengths), seed)
        for name, stack in read.stacks.items():
            curves[cloud + name] = figures.curves_of(stack)
            if "layers" in only:
                other = None if shuffled is None else shuffled.stacks[name]
                figures.add_layers(found, cloud, stack, other, counts)
        main = read.stacks[""]
        if "collapse" in only:
            figures.add_sink(found, cloud, main, seed)
            figures.add_collapse(found, cloud, "collapse", main, counts)
            if prompts is not None:
                figures.add_collapse(found, cloud, "collapse_15", prompts.stacks[""], few)
        if "lens" in only:
            figures.add_lens(found, cloud, read, shuffled, layers, counts)
            clouds = {cloud: read} | ({"shuffled": shuffled} if shuffled is not None else {})
            for whose, one in clouds.items():
                if one.seen is not None:
                    names = ("entropy", "divergence", "unigram")
                    lens[whose] = {key: getattr(one.seen, key).mean(0).tolist() for key in names}
        if "confidence" in only:
            for name, one, drawn in (
                ("confidence", read, counts),
                ("confidence_15", prompts, few),
                ("confidence_shuffled", shuffled, counts),
            ):
                if one is not None and (curve := add_confidence(found, cloud + name, one, drawn, seed)):
                    confidence[cloud + name] = curve
        if "controls" in only:
            figures.add_controls(found, cloud, main, None if shuffled is None else shuffled.stacks[""])
    if (before := passes.get("original/texts")) and (after := passes.get("modulated/texts")) and "layers" in only:
        counts = figures.counts_of(len(after.lengths), seed)
        for name, stack in after.stacks.items():
            figures.add_difference(found, stack, before.stacks[name], counts)
    if lens:
        after = range(len(next(iter(lens.values()))["entropy"]))
        curves["lens"] = {"after": list(after), "clouds": lens}
    return {"curves": curves, "confidence": confidence}
