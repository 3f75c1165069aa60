"""Seconds a step: in three precisions, compiled, and with AdamW as one kernel."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.gpu.setting import FLOOR, FULL, Setting
from benchmarks.harness import Row, milliseconds, ratio
from benchmarks.ways import LR, MODULATORS, WEIGHT_DECAY, Through, Way, fine_tuned, modulated
from modulant.compiling import compiled

PRECISIONS = ("fp32", "tf32", "bf16")
TOLERANCE = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 1e-1}  # of a loss of a few nats


def steps(now: Setting) -> Iterator[Row]:
    """Eager, in three precisions and two batch sizes, against full fine-tuning in the same."""
    model = now.backbone()
    for examples in (32,) if now.quick else (32, 512):
        batches = now.batches(model, examples, 3)
        for precision in PRECISIONS:
            ways = in_precision(model, precision)
            losses = [way.base_loss(batches[0]) for way in ways.values()]
            off = max(losses) - min(losses)
            parity = f"{'equal' if off <= TOLERANCE[precision] else 'differ'}: base's loss to {off:.0e}"
            with matmul(precision):
                seconds = now.timed(ways, batches)
            for name, turns in seconds.items():
                yield {
                    "what": f"{now.shape}, {precision}, {examples} definitions: {name}",
                    "ours": milliseconds(turns),
                    "plain": milliseconds(seconds[FULL]),
                    "ratio": str(ratio(turns, seconds[FULL])),
                    "asked": "<= 0.68" if name.endswith("at all layers") and name != FLOOR else "",
                    "parity": parity,
                }


def in_precision(model: Any, precision: str) -> dict[str, Way]:
    """bf16 as configs/bf16.yaml has it: frozen weights and products in it; full fine-tuning keeps fp32 weights."""
    full = fine_tuned(model)
    if precision == "bf16":
        model = copy.deepcopy(model).to(torch.bfloat16)
    ways = {FLOOR: modulated(model, Through)}
    ways |= {f"{name} at all layers": modulated(model, kind) for name, kind in MODULATORS.items()}
    ways[FULL] = full
    for way in ways.values():
        way.autocast = torch.bfloat16 if precision == "bf16" else None
    return ways


def compiling(now: Setting) -> Iterator[Row]:
    """`model.compile`, both kinds, against the same eager step."""
    for how in (True, "reduce-overhead"):
        for name, kind in list(MODULATORS.items())[-1:] if now.quick else MODULATORS.items():
            torch.compiler.reset()
            model = now.backbone()
            batches = now.batches(model, 4 if now.quick else 32, 2 if now.quick else 5)
            ways = {"eager": modulated(model, kind), "compiled": modulated(model, kind)}
            ways["compiled"].call = compiled(ways["compiled"].model, how, "inductor" if now.cuda else "eager")
            began = time.monotonic()
            losses = [float(way.loss(batches[0]).detach()) for way in ways.values()]
            for batch in batches:
                ways["compiled"].step(batch)
            warm = time.monotonic() - began
            off = abs(losses[0] - losses[1])
            with matmul("tf32"):
                seconds = now.timed(ways, batches)
            yield {
                "what": f"{now.shape}, compile: {str(how).lower()}, {name} at all layers, against eager, tf32; "
                f"{warm:.0f} s to {'compile' if now.cuda else 'trace, and no code made'}",
                "ours": milliseconds(seconds["compiled"]),
                "plain": milliseconds(seconds["eager"]),
                "ratio": str(ratio(seconds["compiled"], seconds["eager"])),
                "parity": f"{'equal' if off <= TOLERANCE['tf32'] else 'differ'}: loss to {off:.0e}",
            }


@contextmanager
def matmul(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def optimizers(now: Setting) -> Iterator[Row]:
    """AdamW as one kernel against AdamW over lists of tensors, PyTorch's default on a GPU, within a whole step."""
    model = now.backbone()
    batches = now.batches(model, n=3)
    for name, kind in MODULATORS.items():
        ways = {"lists": modulated(model, kind), "fused": modulated(model, kind)}
        groups = ways["fused"].trained
        ways["fused"].optimizer = torch.optim.AdamW(list(groups), lr=LR, weight_decay=WEIGHT_DECAY, fused=True)
        seconds = now.timed(ways, batches)
        yield {
            "what": f"{now.shape}, {name}: a step with AdamW(fused=True), against the default",
            "ours": milliseconds(seconds["fused"]),
            "plain": milliseconds(seconds["lists"]),
            "ratio": str(ratio(seconds["fused"], seconds["lists"])),
        }
