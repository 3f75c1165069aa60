"""Memory that training a modulator takes on each device, for a T5 by its name: without weights and network."""

import argparse
import json
from pathlib import Path
from typing import Any

from probes.memory.published import PUBLISHED, published
from probes.options import at_least, layer_numbers

DESCRIPTION = """\
Memory on each device in training a modulator on a frozen T5, by strategy, and whether it fits on common GPUs.
A published T5 is given by its name, any other as a folder with a config.json or a hub id; only shapes are read."""

EXAMPLES = """\
examples:
  python probe.py memory --model google/t5-v1_1-xxl --strategy fsdp --devices 8
  python probe.py memory --model t5-small --strategy ddp --devices 2 --modulator lerp --layers 3,4,5
  python probe.py memory --model /path/to/t5 --dtype float32 --batch-size 8 --gradient-checkpointing --json"""

GPUS = (24, 40, 80)  # GB
_RESERVED = 0.5  # GB of a GPU that CUDA's context takes
_GB = 1e9

_ABOUT = {
    "frozen weights": "of the backbone, in {dtype}{sharded}",
    "gathered blocks": "blocks that are whole for a while, three of the largest at most",
    "modulator": "fp32, {learned:,} trained parameters",
    "gradients": "of trained parameters, fp32",
    "gradients on their way": "to the other processes",
    "optimizer": "{optimizer}'s state, fp32",
    "activations": "of {batch} × {source} source and {target} target tokens{again}",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, metavar="NAME", help="mini, t5-small … google/flan-t5-xxl, or a folder")
    add("--strategy", choices=("single", "ddp", "fsdp"), default="single", help="default: %(default)s")
    add("--devices", type=at_least(1), default=1, help="over all machines (default: %(default)s)")
    add("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the frozen weights")
    add("--batch-size", type=at_least(1), default=32, help="examples a device (default: %(default)s)")
    add("--source", type=at_least(1), default=128, help="tokens of each, padding included (default: %(default)s)")
    add("--target", type=at_least(1), default=16, help="tokens of each answer (default: %(default)s)")
    add("--modulator", choices=("field", "lerp"), default="field", help="default: %(default)s")
    add("--layers", type=layer_numbers, metavar="N,N,…", help="encoder blocks to modulate (default: all)")
    add("--gradient-checkpointing", action="store_true", help="compute activations again in the backward pass")
    add("--optimizer", choices=("adamw", "sgd"), default="adamw", help="default: %(default)s")
    add("--json", action="store_true", help="the figures in bytes, as JSON")


def main(args: argparse.Namespace) -> int:
    """Count and print.

    Raises:
        ValueError: an unknown name, a layer that it lacks, or several devices for one process.
    """
    if args.strategy == "single" and args.devices > 1:
        raise ValueError(f"--devices is {args.devices}: several need --strategy ddp or fsdp")
    name = published(args.model) or _other(args.model)

    from transformers import T5Config

    from modulant.backbones.sizes import check_layers
    from modulant.backbones.t5 import load_config
    from probes.memory.model import Setting, memory

    config = T5Config(**PUBLISHED[name]) if name in PUBLISHED else load_config(name)
    layers = check_layers(args.layers, config.num_layers, "--layers")
    setting = Setting(
        strategy=args.strategy,
        devices=args.devices,
        dtype=args.dtype,
        batch_size=args.batch_size,
        source=args.source,
        target=args.target,
        modulator=args.modulator,
        layers=layers,
        gradient_checkpointing=args.gradient_checkpointing,
        optimizer=args.optimizer,
    )
    found = {"model": name, **vars(setting), **memory(config, setting)}
    found["fits"] = {f"{size} GB": found["total_each"] <= (size - _RESERVED) * _GB for size in GPUS}
    print(json.dumps(found, indent=2) if args.json else page(found))
    return 0


def _other(model: str) -> str:
    """`mini`, a folder, or another hub id, whose config.json is in the cache or can be had.

    Raises:
        ValueError: none of these.
    """
    if model == "mini" or (Path(model).expanduser() / "config.json").is_file():
        return model
    import difflib

    names = {short for full in PUBLISHED for short in (full, full.partition("/")[2])}
    near = difflib.get_close_matches(model, names, n=1, cutoff=0.8)
    if "/" in model and not near and not Path(model).expanduser().exists():
        return model
    hint = f"; did you mean {near[0]}?" if near else f"; known are mini, {', '.join(PUBLISHED)}"
    raise ValueError(f"--model: {model!r} is no folder with a config.json and no T5 that is known by name{hint}")


def page(found: dict[str, Any]) -> str:
    """The figures as text, in GB of 10⁹ bytes."""
    each, many = found["each"], found["devices"] > 1
    words = {
        "dtype": found["dtype"],
        "sharded": f", blocks sharded over {found['devices']}" if found["strategy"] == "fsdp" and many else "",
        "learned": found["parameters"]["learned"],
        "optimizer": {"adamw": "AdamW", "sgd": "SGD"}[found["optimizer"]],
        "batch": found["batch_size"],
        "source": found["source"],
        "target": found["target"],
        "again": ", computed again" if found["gradient_checkpointing"] else "",
    }
    where = f"{found['devices']} devices, {found['strategy']}" if many else "one device"
    lines = [
        f"{found['modulator']} on {found['model']}, {found['parameters']['frozen']:,} frozen parameters; {where}",
        "",
        f"  {'':<24}{'each':>10}{'all':>12}",
    ]
    for part, size in each.items():
        if size:
            about = _ABOUT[part].format(**words)
            lines.append(f"  {part:<24}{_gb(size)}{_gb(size * found['devices'], 12)}   {about}")
    lines += [f"  {'total':<24}{_gb(found['total_each'])}{_gb(found['total'], 12)}   GB", ""]
    lines += [f"  {size}: {'fits' if fits else 'does not fit'}" for size, fits in found["fits"].items()]
    return "\n".join(lines)


def _gb(size: int, width: int = 10) -> str:
    return f"{size / _GB:>{width}.3f}"
