"""Geometry of a vocabulary and of the stream layer by layer, each figure beside its null.

What an embedding's constants are worth is seen against a cloud with the same covariance, against a list with its items
permuted, and against the same architecture untrained.
"""

import argparse
import time
from typing import Any

from probes.battery import described, folder_for, measured, publish
from probes.options import add_ending, add_layers, add_model, add_only, with_bar

DESCRIPTION = """\
Geometry of a model's vocabulary (lengths, cosines and distances over all pairs, spectrum, pentachora, order of digits
and letters, categories of words) and of its stream layer by layer, of any known family. Each figure has its null beside
it: a Gaussian cloud with the same covariance, permuted items, the same architecture with random weights. Of a run, the
layers are measured before (original) and after (modulated)."""

EXAMPLES = """\
examples:
  python probe.py terrain mini
  python probe.py terrain runs/lerp/version_0 --only layers
  python probe.py terrain all-MiniLM-L6-v2 --rows all --output runs/probes/minilm"""

PARTS = ("vocabulary", "pentachora", "words", "constants", "layers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model(parser)
    add(
        "--rows",
        choices=("tokens", "all"),
        default="tokens",
        help="tokens: rows of tokens that are neither special nor zero; all: the whole matrix (default: %(default)s)",
    )
    add_only(parser, PARTS)
    add_layers(parser)
    add(
        "--random",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the layers of the same architecture with random weights too",
    )
    add_ending(parser, "all samples and nulls", "terrain_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, report.md, report.html and the figures, print the page.

    Raises:
        ValueError: no such model, layer or device, or the disk refuses a file.
    """
    folder = folder_for("terrain", [args.model], args.output)
    found = measure(args)
    from probes.terrain import page

    publish(folder, found, page.charts(found), page.content(found))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that `report.json` holds.

    Raises:
        ValueError: no such model, layer or device, or nothing that can be measured.
    """
    started = time.monotonic()
    from modulant.backbones.sizes import check_layers
    from probes.findings import Findings
    from probes.opening import open_subject

    subject = open_subject(args.model, args.device)
    backbone = subject.backbone
    layers = check_layers(args.layers, backbone.shape.n_layers, "--layers", "model")
    found = Findings()
    more = _vocabulary(args, subject, found)
    if "layers" in args.only:
        more |= _measure_layers(args, subject, layers, found)
    if not found.figures:
        raise ValueError(f"nothing of --only {','.join(args.only)} applies to {args.model!r}: {more['left_out']}")
    return {
        **described("terrain", args.model, backbone),
        "settings": {"rows": args.rows, "only": list(args.only), "layers": layers, "seed": args.seed},
        **more,
        **measured(found, backbone.model.device, started),
    }


def _vocabulary(args: argparse.Namespace, subject: Any, found: Any) -> dict[str, Any]:
    """Figures of the embedding matrix; returns what is not a figure."""
    from probes.opening import rows_of, special_ids
    from probes.terrain import vocabulary as cloud
    from probes.terrain import words
    from probes.terrain.head import measure_head

    wanted, embedding = set(args.only) - {"layers"}, subject.embedding
    if not wanted:
        return {}
    if embedding is None:
        return {"left_out": "it reads images, and has no vocabulary"}
    rows = rows_of(subject, embedding, args.rows)
    found.add("rows/measured", len(rows.points), "rows")
    more: dict[str, Any] = {"rows": rows.counts, "dimensions": embedding.shape[1]}
    curves: dict[str, Any] = {}
    steps: dict[str, Any] = {}
    if "vocabulary" in wanted:
        steps["lengths"] = lambda: cloud.measure_norms(rows, found)
        steps["angles"] = lambda: cloud.measure_angles(rows, found)
        steps["spectrum"] = lambda: curves.update(spectrum=cloud.measure_spectrum(rows, found, args.seed))
        steps["head"] = lambda: measure_head(subject, rows, found)
    if "pentachora" in wanted:
        steps["pentachora"] = lambda: cloud.measure_pentachora(rows, found, args.seed)
    if "constants" in wanted:
        steps["constants"] = lambda: curves.update(cosines=cloud.measure_constants(rows, found, args.seed))
    for step in with_bar(list(steps.values()), "measuring"):
        step()
    if subject.tokenizer is None:
        if "words" in wanted:
            found.leave_out("digits", ("r", "p", "adjacent_gap"), subject.no_tokenizer)
            found.leave_out("letters", ("r",), subject.no_tokenizer)
            found.leave_out("categories", ("gap", "z"), subject.no_tokenizer)
        return more | {"curves": curves}
    if "words" in wanted:
        named = words.Vocabulary(embedding, subject.tokenizer)
        curves["order"] = words.measure_order(named, found, args.seed)
        more["categories"] = words.measure_categories(named, found, args.seed, rows.mean)
    if "vocabulary" in wanted:
        norms, ids = rows.points.norm(dim=1), rows.ids
        token = subject.tokenizer.convert_ids_to_tokens
        more["extreme_tokens"] = {
            "shortest": token(int(ids[int(norms.argmin())])),
            "longest": token(int(ids[int(norms.argmax())])),
        }
        more["special_tokens"] = cloud.special_tokens(
            subject.tokenizer, special_ids(subject.tokenizer), embedding, rows
        )
    return more | {"curves": curves}


def _measure_layers(args: argparse.Namespace, subject: Any, layers: list[int], found: Any) -> dict[str, Any]:
    """Figures of the stream, of the model, of a run without its modulator, and of random weights."""
    from probes.terrain.decoder import has_decoder, measure_decoder
    from probes.terrain.layers import inputs_of, measure_layers, states_of

    if subject.tokenizer is None and subject.embedding is not None:
        found.reasons["layers"] = subject.no_tokenizer
        return {"inputs": None}
    backbone = subject.backbone
    inputs = inputs_of(backbone, subject.tokenizer, args.seed)

    def measure_one(prefix: str, model: Any) -> None:
        measure_layers(states_of(model, inputs, layers), found, prefix, args.seed)
        if has_decoder(model):
            measure_decoder(model, inputs, layers, found, prefix, args.seed)

    def original() -> None:
        with subject.original():
            measure_one("original/", backbone)

    steps: dict[str, Any] = {}
    if subject.modulation is None:
        steps["layers"] = lambda: measure_one("", backbone)
    else:
        steps["original"], steps["modulated"] = original, lambda: measure_one("modulated/", backbone)
    if args.random:
        steps["random weights"] = lambda: measure_one("random/", subject.untrained(args.seed))
    for step in with_bar(list(steps.values()), "measuring"):
        step()
    return {"inputs": inputs.what}
