"""What the benchmarks share: interleaved timing, paired ratios, and backbones of real shapes.

A machine that others use too has busy moments. So the ways that are compared take turns, in another order each time,
and a ratio is taken within each turn: its median, and where nine of ten of them lie.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]
COLUMNS = ("what", "ours", "plain", "ratio", "asked", "parity")

# Of the models as they are published; what is timed does not depend on the weights.
_T5 = {"vocab_size": 32128, "d_kv": 64, "feed_forward_proj": "relu"}
SIZES: Mapping[str, Mapping[str, Any]] = {
    "T5-small": _T5 | {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8},
    "T5-base": _T5 | {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12},
    "T5-large": _T5 | {"d_model": 1024, "d_ff": 4096, "num_layers": 24, "num_heads": 16},
}
SHAPES = ("mini", "T5-small", "T5-base")


class Ratio(NamedTuple):
    """Of two ways' times, turn by turn."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.middle:.2f} [{self.low:.2f}, {self.high:.2f}]"


def backbone(shape: str) -> Any:
    """A frozen T5 in eval mode: the bundled mini, or random weights in the sizes of a published one."""
    from transformers import T5Config, T5ForConditionalGeneration

    from modulators import load_t5

    if shape == "mini":
        return load_t5("mini")[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = T5Config(**SIZES[shape], decoder_start_token_id=0)
        return T5ForConditionalGeneration(config).requires_grad_(False).eval()


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    turns: int,
    warm_up: int = 1,
    device: torch.device | None = None,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each way in each turn, by `clock`. Within a turn their order is drawn anew, by a fixed seed."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    order, rng = list(ways), random.Random(0)
    for turn in range(-warm_up, turns):
        rng.shuffle(order)
        for name in order:
            start = _now(device, clock)
            ways[name]()
            if turn >= 0:
                seconds[name].append(_now(device, clock) - start)
            else:
                _now(device, clock)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """above / below, turn by turn: the median, and the 5th and 95th percentile."""
    ratios = sorted(a / b for a, b in zip(above, below, strict=True))
    last = len(ratios) - 1
    return Ratio(median(ratios), ratios[round(0.05 * last)], ratios[round(0.95 * last)])


def milliseconds(seconds: Sequence[float]) -> str:
    """The median."""
    return f"{1e3 * median(seconds):.3g} ms"


def table(rows: Sequence[Row]) -> str:
    """Markdown; a column that no row fills is left out."""
    columns = [column for column in COLUMNS if any(row.get(column) for row in rows)]
    rule = " | ".join("---" if column in ("what", "parity") else "---:" for column in columns)
    cells = [" | ".join(str(row.get(column, "")) for column in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in (" | ".join(columns), rule, *cells))


def differing(rows: Sequence[Row]) -> list[str]:
    """What of it has another result than the plain way."""
    return [row["what"] for row in rows if "differ" in str(row.get("parity", ""))]


def _now(device: torch.device | None, clock: Callable[[], float]) -> float:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()
