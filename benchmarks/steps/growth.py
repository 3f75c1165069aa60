"""How cost grows: seconds, counted operations and kept memory of a step over batch, length, layers, width and experts.

And of what surrounds a step: WordNet's size, and processes. Writes docs/figures/growth.png unless `--quick`.
"""

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from benchmarks.harness import ROOT, Ratio, Row, interleaved, milliseconds, ratio
from benchmarks.ways import Way, drawn_batch, gflop, modulated
from modulators import FieldModulator, ResidualStream
from probes.memory.model import kept_of

ABOUT = """\
How seconds, operations and kept memory grow when one size grows.

![How cost grows](../figures/growth.png)

- **Setup.** 16 definitions of 32 tokens, width 256, 4 encoder blocks and 2 decoder blocks. The field's three experts \
at all layers; random frozen weights.
- **Ratio** is the slope in double logarithms: 1 is linear, 2 quadratic. For seconds: the median over turns, and where \
nine of ten lie. Operations and memory are counted: in brackets are the flattest and the steepest step.
- ***Ours*** is the first point and the last.
- **Processes**: the time of one of two that run at once over the time of one alone, equal work and one thread each. \
1 would be two for the price of one.
- **WordNet** is read from the caches that a first run leaves."""

FIGURE = ROOT / "docs" / "figures" / "growth.png"
BATCH, LENGTH, WIDTH, LAYERS = 16, 32, 256, 4
AXES: dict[str, tuple[int, ...]] = {
    "batch": (4, 8, 16, 32, 64),
    "length": (8, 16, 32, 64, 128, 256),
    "layers": (1, 2, 4, 8),
    "width": (64, 128, 256, 512),
    "experts": (1, 2, 3, 4, 6),
}
SAYS = {"batch": "examples", "length": "tokens", "layers": "blocks", "width": "dimensions", "experts": "simplices"}
_NEAR = 0.05  # a slope this near to 1 is called linear
POPULATION_WIDTH, SAMPLE = 128, 1_000_000


@dataclass
class Curve:
    """One measure over one size: each turn's values, of every point."""

    size: str
    measure: str
    points: Sequence[int]
    turns: Sequence[Sequence[float]]
    written: Callable[[float], str] = field(repr=False)

    def slope(self) -> Ratio:
        """Of the line through the logarithms: over turns, or for one turn, between its flattest and steepest step."""
        x = [math.log(point) for point in self.points]
        if len(self.turns) > 1:
            slopes = sorted(_slope(x, [math.log(value) for value in turn]) for turn in self.turns)
            last = len(slopes) - 1
            return Ratio(median(slopes), slopes[round(0.05 * last)], slopes[round(0.95 * last)])
        y = [math.log(value) for value in self.turns[0]]
        steps = [(b - a) / (v - u) for (u, v), (a, b) in zip(pairwise(x), pairwise(y), strict=True)]
        return Ratio(_slope(x, y), min(steps), max(steps))

    def middle(self) -> list[float]:
        """The median at each point."""
        return [median(values) for values in zip(*self.turns, strict=True)]

    def verdict(self) -> str:
        """In words, by the whole interval."""
        slope = self.slope()
        if slope.low >= 1 - _NEAR and slope.high <= 1 + _NEAR:
            return "linear"
        if slope.high < 1 + _NEAR:
            return "less than linear" if slope.high < 1 - _NEAR else "linear, or less"
        if slope.low > 1 - _NEAR:
            return "more than linear" if slope.low > 1 + _NEAR else "linear, or more"
        if len(self.turns) > 1:
            return "about linear: the interval is wide"
        return "it bends: less than linear in places, more in others"

    def row(self) -> Row:
        values = self.middle()
        return {
            "what": f"{self.measure} over {self.size}, {self.points[0]:,} … {self.points[-1]:,}: {self.verdict()}",
            "ours": f"{self.written(values[0])} … {self.written(values[-1])}",
            "ratio": str(self.slope()),
        }


def _slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Least squares."""
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum((a - x_mean) ** 2 for a in x)


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is a slope, for processes a ratio of times."""
    turns = 2 if quick else 6
    curves: list[Curve] = []
    for size, points in AXES.items():
        curves += step_curves(size, points[:3] if quick else points, turns)
    curves += wordnet_curves(1 if quick else 3)
    if not quick:
        draw(curves, FIGURE)
    return [*(curve.row() for curve in curves), processes_row(4 if quick else 20)]


# A step


def step_curves(size: str, points: Sequence[int], turns: int) -> list[Curve]:
    """Three curves: of experts, whose share of a step is small, by the field alone."""
    calls: dict[str, Callable[[], object]] = {}
    counted, kept = [], []
    for point in points:
        if size == "experts":
            calls[str(point)], gflops, stays = field_alone(point)
        else:
            way = way_of(**{size: point})
            batch = drawn_batch(way.model.config.vocab_size, [point if size == "length" else LENGTH] * (
                point if size == "batch" else BATCH
            ))  # fmt: skip
            calls[str(point)] = partial(way.step, batch)
            gflops = gflop(way, batch)
            stays = kept_of(partial(way.loss, batch), way.model.parameters()).stays
        counted.append(gflops)
        kept.append(float(stays))
    seconds = interleaved(calls, turns)
    by_turn = list(zip(*(seconds[str(point)] for point in points), strict=True))
    return [
        Curve(size, "seconds", points, by_turn, lambda value: milliseconds([value])),
        Curve(size, "GFLOP", points, [counted], lambda value: f"{value:.3g}"),
        Curve(size, "kept memory", points, [kept], lambda value: f"{value / 2**20:.3g} MiB"),
    ]


def way_of(width: int = WIDTH, layers: int = LAYERS, **_: int) -> Way:
    """The field on a frozen T5 of this width and so many encoder blocks."""
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=8000, d_model=width, d_kv=64, num_heads=max(1, width // 64), d_ff=4 * width, num_layers=layers,
        num_decoder_layers=2, decoder_start_token_id=0,
    )  # fmt: skip
    return modulated(T5ForConditionalGeneration(config).requires_grad_(False).eval(), FieldModulator)


def field_alone(n_experts: int) -> tuple[Callable[[], object], float, int]:
    """Forward and backward at one layer, with simplices of 1 … n dimensions."""
    from torch.utils.flop_counter import FlopCounterMode

    modulator = FieldModulator(ResidualStream(WIDTH, 1, 100), expert_ks=range(1, n_experts + 1))
    residual = torch.randn(BATCH, LENGTH, WIDTH, requires_grad=True)

    def call() -> Tensor:
        out: Tensor = modulator(residual, 0)
        out.backward(torch.ones_like(out))
        return out

    with FlopCounterMode(display=False) as counter:
        call()
    kept = kept_of(lambda: modulator(residual, 0), [*modulator.parameters(), *modulator.buffers(), residual]).stays
    return call, counter.get_total_flops() / 1e9, kept


# WordNet


def wordnet_curves(turns: int) -> list[Curve]:
    """From the entries of one token to all pairs: start-up, an epoch's batches, an evaluation on a sample of pairs."""
    from datamodules import WordNetDataModule
    from modulant.metrics import RelationalAlignment

    WordNetDataModule().setup()  # from here on from the caches
    few = RelationalAlignment(torch.ones(9, 9, dtype=torch.uint8), torch.zeros(9, dtype=torch.bool), pairs=5)
    few.update(torch.randn(9, POPULATION_WIDTH))  # its loop is in machine code by now
    taken: dict[str, list[list[float]]] = {"start-up": [], "an epoch's batches": [], "evaluation by a sample": []}
    for _ in range(turns):
        sizes = []
        for values in taken.values():
            values.append([])
        for matching in ("single_token", "all"):
            start = perf_counter()
            data = WordNetDataModule(matching=matching)
            data.setup()
            taken["start-up"][-1].append(perf_counter() - start)
            start = perf_counter()
            for _batch in data.train_dataloader():
                pass
            taken["an epoch's batches"][-1].append(perf_counter() - start)
            points = torch.randn(len(data.population), POPULATION_WIDTH)
            start = perf_counter()
            metric = RelationalAlignment(data.path_distances(), data.population.part, pairs=SAMPLE)
            metric.update(points)
            metric.compute()
            taken["evaluation by a sample"][-1].append(perf_counter() - start)
            sizes.append(len(data.entries))
    return [
        Curve("WordNet pairs", what, sizes, values, lambda value: f"{value:.2f} s") for what, values in taken.items()
    ]


# Processes


def processes_row(turns: int) -> Row:
    """Two gloo processes that share each step's gradients, beside one of them alone."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(_rank, (folder, turns), nprocs=2)
        seconds: dict[str, list[float]] = torch.load(Path(folder, "seconds.pt"))
    return {
        "what": "seconds of a step, two processes with a thread each beside one, equal work each",
        "ours": milliseconds(seconds["together"]),
        "plain": milliseconds(seconds["alone"]),
        "ratio": str(ratio(seconds["together"], seconds["alone"])),
    }


class _Loss(nn.Module):
    """What DistributedDataParallel wraps: only what trains is a parameter of it."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.modulator, self._way = way.modulator, way

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self._way.loss(batch)


def _rank(rank: int, folder: str, turns: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    way = way_of()
    wrapped = nn.parallel.DistributedDataParallel(_Loss(way))
    batch = drawn_batch(way.model.config.vocab_size, [LENGTH] * BATCH, seed=rank)
    seconds: dict[str, list[float]] = {"together": [], "alone": []}
    assert way.optimizer is not None
    for turn in range(-2, turns):
        for name in ("together", "alone") if turn % 2 else ("alone", "together"):
            torch.distributed.barrier()
            if name == "alone" and rank:
                continue  # it waits at the next barrier
            start = perf_counter()
            way.optimizer.zero_grad(set_to_none=True)
            loss = wrapped(batch) if name == "together" else way.loss(batch)
            loss.backward()
            way.optimizer.step()
            if turn >= 0:
                seconds[name].append(perf_counter() - start)
    torch.distributed.barrier()
    if rank == 0:
        torch.save(seconds, Path(folder, "seconds.pt"))
    torch.distributed.destroy_process_group()


# The figure


def draw(curves: Sequence[Curve], path: Path) -> Path:
    """A panel a size: each measure beside its first point, both axes logarithmic, and what linear would be."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    from modulant.reports.drawing.plotting import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, VERMILION, dress, save

    colours = {
        "seconds": BLUE, "GFLOP": ORANGE, "kept memory": GREEN,
        "start-up": PURPLE, "an epoch's batches": VERMILION, "evaluation by a sample": INK,
    }  # fmt: skip
    sizes = list(dict.fromkeys(curve.size for curve in curves))
    figure = Figure(figsize=(10.5, 6.4), layout="constrained")
    axes = figure.subplots(2, math.ceil(len(sizes) / 2)).flat
    for axis, size in zip(axes, sizes, strict=False):
        own = [curve for curve in curves if curve.size == size]
        points = own[0].points
        axis.set(xscale="log", yscale="log")
        axis.plot(points, [point / points[0] for point in points], color=GREY, linestyle="--", linewidth=1)
        for curve in own:
            values = curve.middle()
            label = f"{curve.measure}: {curve.slope().middle:.2f}"
            relative = [value / values[0] for value in values]
            axis.plot(points, relative, color=colours[curve.measure], marker="o", markersize=3.5, label=label)
        dress(axis, title=f"{size}", x=SAYS.get(size, "pairs"), y="times the first")
        axis.set_xticks(points, [f"{point:,}" for point in points])
        axis.minorticks_off()
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_ylim(top=2 * axis.get_ylim()[1])  # room for the legend
        axis.legend(frameon=False, fontsize=8, title="slope", title_fontsize=8, alignment="left")
    figure.suptitle("How cost grows (dashed: linear)", x=0.01, ha="left", fontsize=12)
    return save(figure, path)
