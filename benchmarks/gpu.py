"""Everything worth measuring on a GPU, in one call of under eight minutes: a table in Markdown and JSON.

  make test-gpu                                    first: whether it is right there

  python benchmarks/gpu.py --out DIR               without --out: $OUT, or the working folder
  python benchmarks/gpu.py --device cpu --quick    all of it that a CPU can run, on a model that takes no time

Each part stands alone: one that fails, or takes longer than it may, leaves a line that says so behind the rows that it
had measured, and what was measured before it is already written. It needs torch, transformers, lightning and the
checkout: no WordNet (lengths are drawn like the definitions'), no command line of ours.
"""

import argparse
import copy
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_profile import profiled
from benchmarks.harness import Row, backbone, differing, interleaved, milliseconds, ratio, table
from benchmarks.ways import (
    LR,
    MODULATORS,
    WEIGHT_DECAY,
    Batch,
    Through,
    Way,
    drawn_batch,
    drawn_lengths,
    fine_tuned,
    modulated,
    modulated_module,
)
from modulant.compiling import compiled
from modulant.metrics import RelationalAlignment
from modulant.storage import write_whole
from probes.memory.model import kept_of

BUDGET = 450  # seconds for all of it
FULL, FLOOR = "full fine-tuning", "nothing at all layers"
PRECISIONS = ("fp32", "tf32", "bf16")
TOLERANCE = {"fp32": 1e-4, "tf32": 2e-2, "bf16": 1e-1}  # of a loss of a few nats
POPULATION = (8402, 512)  # T5-small's


@dataclass
class Setting:
    """Where it runs, and how long."""

    device: torch.device
    quick: bool
    shape: str = ""

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def backbone(self) -> Any:
        if not self.quick:
            return backbone(self.shape).to(self.device)
        from transformers import T5Config, T5ForConditionalGeneration

        sizes = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 32, "num_heads": 4, "num_layers": 2}
        model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
        return model.requires_grad_(False).eval().to(self.device)

    def batches(self, model: Any, examples: int = 32, n: int = 5) -> list[Batch]:
        """Of similar lengths each, as training has them: evenly spread over an epoch of drawn lengths, sorted."""
        lengths = sorted(drawn_lengths(examples * 270))
        starts = [int((i + 0.5) * 270 / n) * examples for i in range(n)]
        vocabulary, device = model.config.vocab_size, str(self.device)
        return [drawn_batch(vocabulary, lengths[s : s + examples], seed=s, device=device) for s in starts]

    def timed(self, ways: dict[str, Way], batches: Sequence[Batch]) -> dict[str, list[float]]:
        """Seconds a step: each turn walks through all batches, and waits for the device at its end alone."""

        def walk(way: Way) -> Callable[[], object]:
            return lambda: [way.step(batch) for batch in batches]

        taken = interleaved({name: walk(way) for name, way in ways.items()}, 2 if self.quick else 5, 1, self.device)
        return {name: [seconds / len(batches) for seconds in turns] for name, turns in taken.items()}


class NeedsGpuError(Exception):
    """Nothing to see on a CPU."""


# The parts: each returns rows


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


@contextmanager
def matmul(precision: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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


def launches(now: Setting) -> Iterator[Row]:
    """Kernels a step, and by kind what the modulators add to the floor: whether a fused kernel would pay."""
    model = now.backbone()
    batch = now.batches(model)[2]
    ways = {FLOOR: modulated(model, Through)} | {name: modulated(model, kind) for name, kind in MODULATORS.items()}
    ways[FULL] = fine_tuned(model)
    found = {name: profiled(way, batch, now.cuda) for name, way in ways.items()}
    unit = "kernels" if now.cuda else "operations on the CPU"
    for name, groups in found.items():
        count, spent = sum(g.count for g in groups.values()), sum(g.seconds for g in groups.values())
        by_kind = sorted(groups.items(), key=lambda item: -item[1].seconds)
        yield {
            "what": f"{now.shape}, a step's {unit}, {name}: "
            + ", ".join(f"{kind} {g.count} ({g.seconds / spent:.0%})" for kind, g in by_kind),
            "ours": f"{count:,}",
            "plain": milliseconds([spent]),
        }
        if name in MODULATORS:
            floor = found[FLOOR]
            more = {
                kind: (g.count - floor[kind].count, g.seconds - floor[kind].seconds)
                for kind, g in groups.items()
                if kind in floor
            } | {kind: (g.count, g.seconds) for kind, g in groups.items() if kind not in floor}
            yield {
                "what": f"{now.shape}, of these {name} adds: "
                + ", ".join(f"{kind} {n} ({1e3 * s:.2g} ms)" for kind, (n, s) in more.items() if n),
                "ours": f"{sum(n for n, _ in more.values()):,}",
                "plain": milliseconds([sum(s for _, s in more.values())]),
                "ratio": f"{sum(s for _, s in more.values()) / spent:.2f}",
            }


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


def waiting(now: Setting) -> Iterator[Row]:
    """Operations of a training pass at which the host waits for the GPU, with the line of Python that asked."""
    if not now.cuda:
        raise NeedsGpuError
    for name, kind in MODULATORS.items():
        model = now.backbone()
        module = modulated_module(model, kind)
        optimizer = torch.optim.AdamW(module.modulator.parameters())
        batch: dict[str, Any] = dict(now.batches(model)[2])
        batch["padded"] = not bool(batch["attention_mask"].all())  # as the DataModule has it, from the host

        def step(module: Any = module, optimizer: Any = optimizer, batch: Any = batch) -> None:
            optimizer.zero_grad(set_to_none=True)
            module(batch).loss.backward()
            optimizer.step()

        step()
        torch.cuda.synchronize()
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        said = [w for w in heard if "called a synchronizing" in str(w.message)]
        where = sorted({f"{Path(w.filename).name}:{w.lineno}" for w in said})
        yield {
            "what": f"{now.shape}, {name}: waits for the GPU in a step{': ' + ', '.join(where) if where else ''}",
            "ours": str(len(said)),
            "asked": "0",
        }


def memory(now: Setting) -> Iterator[Row]:
    """The peak of a step, beside weights, four times what learns, and what autograd keeps."""
    if not now.cuda:
        raise NeedsGpuError
    for name, kind in MODULATORS.items():
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        model = now.backbone()
        way = modulated(model, kind)
        batch = now.batches(model, 512)[2]
        assert way.modulator is not None
        learned = sum(p.numel() * p.element_size() for p in way.modulator.parameters())
        weights = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
        tensors = [*model.parameters(), *model.buffers(), *way.modulator.parameters(), *way.modulator.buffers()]
        kept = kept_of(partial(way.loss, batch), tensors).stays
        way.step(batch)
        torch.cuda.reset_peak_memory_stats()
        way.step(batch)
        peak = torch.cuda.max_memory_allocated() - before
        counted = weights + 4 * learned + kept
        yield {
            "what": f"{now.shape}, {name}, 512 definitions: peak memory, beside what is counted",
            "ours": f"{peak / 2**20:,.0f} MiB",
            "plain": f"{counted / 2**20:,.0f} MiB",
            "ratio": f"{peak / counted:.2f}",
        }
        del model, way, batch, tensors


def evaluating(now: Setting) -> Iterator[Row]:
    """All pairs of a population, on the device and on the CPU."""
    n, dim = (500, 32) if now.quick else POPULATION
    rng = np.random.default_rng(0)
    distances = np.triu(rng.integers(1, 24, (n, n), dtype=np.uint8), 1)
    distances, held_out = distances + distances.T, rng.random(n) < 0.1
    points = torch.from_numpy(rng.normal(0.1, 1, (n, dim)).astype(np.float32))
    metrics = {str(place): RelationalAlignment(distances, held_out).to(place) for place in (now.device, "cpu")}
    found: dict[str, float] = {}

    def evaluate(place: str) -> None:
        metric = metrics[place]
        metric.reset()
        metric.update(points.to(place))
        found[place] = float(metric.compute()["pearson"])

    calls = {place: partial(evaluate, place) for place in metrics}
    seconds = interleaved(calls, 2 if now.quick else 5, 1, now.device)
    ours, plain = seconds[str(now.device)], seconds["cpu"]
    off = abs(found[str(now.device)] - found["cpu"])
    yield {
        "what": f"evaluation, {n:,} × {dim}, all pairs, beside the CPU's compiled loop",
        "ours": milliseconds(ours),
        "plain": milliseconds(plain),
        "ratio": str(ratio(plain, ours)),
        "parity": f"{'equal' if off <= 1e-5 else 'differ'}: Pearson to {off:.0e}",
    }


# All of them


@dataclass
class Part:
    """A measurement: for each shape one, and the seconds that one may take."""

    measure: Callable[[Setting], Iterable[Row]]
    shapes: Sequence[str]
    limit: int
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.measure.__name__


PARTS = (
    Part(steps, ("mini", "T5-small", "T5-base"), 45),
    Part(launches, ("mini", "T5-small"), 30),
    Part(waiting, ("T5-small",), 20),
    Part(optimizers, ("mini",), 20),
    Part(compiling, ("mini", "T5-small"), 110),
    Part(evaluating, ("",), 40),
    Part(memory, ("T5-small", "T5-base"), 20),
    Part(steps, ("T5-large",), 60),
    Part(compiling, ("T5-base",), 110),
)


def names_of_parts() -> list[str]:
    return list(dict.fromkeys(part.name for part in PARTS))


def measured(part: Part, now: Setting, left: float) -> list[Row]:
    """Its rows; where they end early, a last one that says why."""
    rows, why = [], ""
    if left < 10:
        why = "left out, the time was over"
    else:
        try:
            with limit(min(part.limit, int(left))):
                for row in part.measure(now):
                    rows.append(row)
        except NeedsGpuError:
            why = "needs a GPU"
        except Exception as error:
            why = f"failed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    return [*rows, {"what": f"{now.shape}, {part.name}: {why}".removeprefix(", ")}] if why else rows


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Limits the seconds of what is inside, by a TimeoutError."""

    def over(*_: object) -> None:
        raise TimeoutError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 1 if a result differed from the plain way's."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", ".")), help="folder of the two files")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a look at the code")
    parser.add_argument("--quick", action="store_true", help="a model of two layers that takes no time")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts together")
    parser.add_argument("--parts", metavar="NAME,NAME,…", help=f"only these of {', '.join(names_of_parts())}")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "error: --device cuda: torch sees no GPU here; --device cpu --quick shows what would run", file=sys.stderr
        )
        return 2
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    head = f"{name}, torch {torch.__version__}, {'quick' if arguments.quick else 'whole'}"
    asked = arguments.parts.split(",") if arguments.parts else names_of_parts()
    if unknown := [name for name in asked if name not in names_of_parts()]:
        print(f"error: --parts: no {unknown[0]!r}; there are {', '.join(names_of_parts())}", file=sys.stderr)
        return 2
    began, rows = time.monotonic(), list[Row]()
    chosen = [part for part in PARTS if part.name in asked]
    parts = [(part, shape) for part in chosen for shape in part.shapes]
    if arguments.quick:
        parts = [(part, "tiny") for part in {part.name: part for part in chosen}.values()]
    for part, shape in parts:
        left = arguments.budget - (time.monotonic() - began)
        new = measured(part, Setting(device, arguments.quick, shape), left)
        rows += new
        print(table(new), flush=True)
        if device.type == "cuda":
            torch.cuda.empty_cache()
        took = time.monotonic() - began
        arguments.out.mkdir(parents=True, exist_ok=True)
        about = {"device": head, "seconds": round(took, 1), "rows": rows}
        write_whole(arguments.out / "gpu.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        write_whole(arguments.out / "gpu.md", f"{head}; {took:.0f} s\n\n{table(rows)}\n")
    return 1 if differing(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
