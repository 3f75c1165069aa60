"""Weights of a transformer: effective ranks, entries, bilinear forms of heads, neurons, likeness of layers.

The files are read tensor by tensor, and the model is never built. Every figure stands beside its null: a Gaussian
matrix of the same shape, heads of two layers that do not belong together, a stream with permuted coordinates.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from probes.options import at_least, check_device, layer_numbers, some_of
from probes.pages import folder_name, write_json, write_text
from probes.topology import PARTS, RANKS

if TYPE_CHECKING:
    from probes.topology.layout import Layout
    from probes.topology.reader import Weights

DESCRIPTION = """\
Effective ranks and entries of every weight matrix, the bilinear forms of every attention head (queries with keys,
outputs with values), couplings of neurons, gains of norms, and how alike adjacent layers read and write the stream;
each beside what random weights have. Tensors are read from the files a block at a time; the model is not built."""

EXAMPLES = """\
Models: T5, mT5, UMT5, BERT and its kin, GPT-2, GPT-NeoX, Llama, Qwen, Mistral, Gemma, Phi, ViT, DINOv2, CLIP; as one
safetensors file, as shards, or as pickles of tensors. Llama, Qwen, Mistral, Gemma and Phi-3 as a GGUF file too, which
needs gguf (pip install 'modulant[weights]'). --resume continues where an interrupted command with the same --output
stopped.

examples:
  python probe.py topology mini
  python probe.py topology google-t5/t5-base --only matrices,heads --layers 0,1,11
  python probe.py topology google/t5-v1_1-xxl --device cuda --output runs/probes/xxl --resume"""

JOURNAL = "progress.jsonl"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("model", metavar="MODEL", help="mini, all-MiniLM-L6-v2, a folder, a hub id, a GGUF file, or a run")
    add("--only", type=some_of(PARTS), default=PARTS, metavar="A,B", help=f"of {', '.join(PARTS)} (default: all)")
    add("--layers", type=layer_numbers, metavar="0,1", help="blocks of each stack (default: all)")
    ways = parser.add_mutually_exclusive_group()
    what = "ranks by singular value decompositions: slower, for comparison"
    ways.add_argument("--exact", dest="ranks", action="store_const", const="exact", default="gram", help=what)
    what = "of the ranks only stable rank and participation ratio, which need no spectrum"
    ways.add_argument("--fast", dest="ranks", action="store_const", const="fast", help=what)
    add("--seed", type=at_least(0), default=42, help="of the permutations (default: %(default)s)")
    add("--device", default="cpu", help="cpu, cuda, cuda:1, … (default: %(default)s)")
    add("--resume", action="store_true", help="resume where an interrupted command with this --output stopped")
    add("--output", type=Path, metavar="DIR", help="default: runs/probes/topology_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, its pages and figures, matrices.jsonl and heads.jsonl, and print the page.

    Returns:
        0; 1 where shards were missing, which the report names.

    Raises:
        ValueError: no such model, a layer that it lacks, weights that cannot be read, or the disk refuses a file.
    """
    from modulant.reports.drawing.plotting import save
    from modulant.storage.places import check_place
    from probes.topology import page

    folder = args.output or Path("runs/probes") / f"topology_{folder_name(args.model)}"
    check_place(folder)
    found, rows = measure(args, folder)
    figures = {f"{chart.name}.png": chart for chart in page.charts(found, rows)}
    text = page.markdown(found, rows, list(figures))
    for part in ("matrices", "heads", *(("positions",) if rows["positions"] else ())):
        write_text(folder / f"{part}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[part]))
    write_json(folder / "report.json", found)
    write_text(folder / "report.md", text)
    write_text(folder / "report.html", page.html(found, rows))
    for name, chart in figures.items():
        save(page.figure(chart), folder / "figures" / name)
    (folder / JOURNAL).unlink(missing_ok=True)
    print(text)
    print(f"written: {folder}/report.json, report.md, report.html, matrices.jsonl, heads.jsonl, figures/")
    if found["missing_shards"]:
        named = ", ".join(found["missing_shards"])
        print(f"error: {named} missing; what they hold was not measured", file=sys.stderr)
        return 1
    return 0


def measure(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """What report.json holds, and the rows by part.

    Raises:
        ValueError: as of `main`.
    """
    import torch

    from modulant.backbones.sizes import check_layers
    from probes.topology.reader import Weights
    from probes.topology.run import change_rows, figures_of_changes, subject_of
    from probes.topology.stream import Journal, Settings, measure_model
    from probes.topology.summary import figures_of

    began = time.monotonic()
    check_device(args.device)
    subject = subject_of(args.model)
    with _as_argument():
        config = _config(subject.name)
        weights = Weights(subject.name, args.device)
        layout = _layout(subject.name, config, weights)
    absent = [stored.module for block in layout.blocks for stored in block.tensors if stored.name is None]
    if absent and not weights.missing:
        raise ValueError(f"{args.model!r} lacks {absent[0]}, which its configuration describes")
    if args.layers is not None:
        check_layers(args.layers, max((block.layer for block in layout.blocks), default=-1) + 1, "--layers", "model")
    settings = Settings(args.layers, tuple(part for part in PARTS if part in args.only), args.ranks, args.seed)
    digest = _digest(subject.name, weights)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / JOURNAL, weights.fingerprint(digest, settings), args.resume)
    with _as_argument():
        found = measure_model(weights, layout, settings, journal)
    figures, n_tests = figures_of(found.rows)
    if subject.adapter is not None:
        found.rows["changes"] = change_rows(subject.adapter, weights, layout, args.seed)
        figures |= figures_of_changes(found.rows["changes"])
    kinds: dict[str, dict[str, int]] = {}
    types: dict[str, dict[str, int]] = {}
    for name, kind in layout.kinds.items():
        for counts, key in ((kinds, kind), (types, weights.type(name))):
            count = counts.setdefault(key, {"tensors": 0, "numbers": 0})
            count["tensors"] += 1
            count["numbers"] += torch.Size(weights.shape(name)).numel()
    return {
        "probe": "topology",
        "model": args.model,
        "backbone": subject.name,
        "run": subject.note,
        "architecture": config.model_type,
        "weights_sha256": digest,
        "way": RANKS[args.ranks],
        "by_name": any(block.by_name for block in layout.blocks) or not layout.blocks,
        "device": args.device,
        "seed": args.seed,
        "layers": args.layers,
        "parts": settings.only,
        "folded": sorted({place for block in layout.blocks for place in block.norms}),
        "tensors": kinds,
        "stored_as": types,
        "unknown": [name for name, kind in layout.kinds.items() if kind == "other"],
        "duplicates": found.duplicates,
        "damaged": {row["name"]: row["damaged"] for row in found.rows["matrices"] if "damaged" in row},
        "missing_shards": weights.missing,
        "population": {part: len(rows) for part, rows in found.rows.items()},
        "tests": n_tests,
        "units": {"rms": "that of the weights", "condition": "ln(σ₁/σ_k)", "others": "none"},
        "figures": figures,
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "resumed_units": found.resumed,
        "seconds": round(time.monotonic() - began, 2),
        "peak_anonymous_bytes": found.memory,
    }, found.rows


@contextmanager
def _as_argument() -> Iterator[None]:
    """Errors about a backbone, which other commands give by an option."""
    try:
        yield
    except ValueError as error:
        raise ValueError(str(error).replace("model.backbone: ", "")) from error


def _config(name: str) -> Any:
    """The model's configuration; of a GGUF file, what its metadata say."""
    from modulant.assets import resolve_backbone
    from modulant.backbones.gguf_files import config_of
    from modulant.backbones.loading import read_config
    from modulant.backbones.opening import check_not_quantised
    from modulant.backbones.weights import packed_file

    if (packed := packed_file(resolve_backbone(name))) is not None:
        return config_of(packed)
    config = read_config(name)
    check_not_quantised(name, config)
    return config


def _layout(name: str, config: Any, weights: "Weights") -> "Layout":
    """Where the matrices are: by the modules of a known family, else by names alone."""
    from modulant.assets import resolve_backbone
    from modulant.backbones.families import family_of
    from modulant.backbones.weights import packed_file
    from probes.topology.layout import layout_of
    from probes.topology.names import layout_by_names

    try:
        family_of(config)
    except ValueError:
        return layout_by_names({one: weights.shape(one) for one in weights.names})
    layout = layout_of(name, config, weights.names)
    if packed_file(resolve_backbone(name)) is not None:  # whose metadata do not say at which scale weights began
        unknown = SimpleNamespace(model_type=config.model_type)
        layout = replace(layout, configs=dict.fromkeys(layout.configs, unknown))
    return layout


def _digest(model: str, weights: "Weights") -> str | None:
    """SHA-256 of all tensors; None where some are missing."""
    from modulant.assets import resolve_backbone
    from modulant.backbones.weights import digest_of_weights

    return None if weights.missing else digest_of_weights(resolve_backbone(model))
