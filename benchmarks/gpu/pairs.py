"""An evaluation over all pairs, on the device and on the CPU."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from benchmarks.gpu.setting import Setting
from benchmarks.harness import Row, interleaved, milliseconds, ratio
from modulant.metrics import RelationalAlignment

POPULATION = (8402, 512)  # T5-small's


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
