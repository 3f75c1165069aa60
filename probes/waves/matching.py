"""What makes arms equal: parameters, by the width of the MLP; and how long their steps take."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import median

import torch
from torch.nn import functional as F

from wavegpt import WaveGPT, build_optimizer
from wavegpt.config import MlpConfig, WaveConfig

TOLERANCE = 0.01  # of the baseline's parameters
_STEPS, _TURNS = 3, 7


def parameters(config: WaveConfig) -> Mapping[str, int]:
    """Numbers of parameters, as `WaveGPT.parameter_counts` has them."""
    with torch.random.fork_rng(devices=[]):
        return WaveGPT(config, torch.arange(config.vocab_size or 0)).parameter_counts()


def matched(config: WaveConfig, total: int) -> WaveConfig:
    """The arm with the width of its MLP changed so that it has nearly `total` parameters; at the least width 1.

    The number of parameters is linear in that width.
    """
    at = {width: parameters(_with_width(config, width))["total"] for width in (1, 2)}
    width = 1 + round((total - at[1]) / (at[2] - at[1]))
    return _with_width(config, max(width, 1))


def _with_width(config: WaveConfig, width: int) -> WaveConfig:
    return replace(config, mlp=MlpConfig(config.mlp.act, width / config.d_model))


def pace(configs: Mapping[str, WaveConfig], baseline: str, batch: int, device: torch.device) -> dict[str, float]:
    """Seconds of a training step over the baseline's, by arm: medians of turns that take every arm in its turn.

    On a CPU it is processor time, so that other processes matter less.

    Args:
        batch: rows of ``context`` tokens.
    """
    steps = {name: _step(config, batch, device) for name, config in configs.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    clock = time.monotonic if device.type == "cuda" else time.process_time
    for turn in range(_TURNS + 1):
        for name, step in steps.items():
            _wait(device)
            began = clock()
            for _ in range(_STEPS):
                step()
            _wait(device)
            if turn:  # the first warms up
                taken[name].append(clock() - began)
    middle = {name: median(seconds) for name, seconds in taken.items()}
    return {name: seconds / middle[baseline] for name, seconds in middle.items()}


def _step(config: WaveConfig, batch: int, device: torch.device) -> Callable[[], None]:
    torch.manual_seed(0)
    model = WaveGPT(config, torch.arange(config.vocab_size or 0)).to(device)
    optimizer = build_optimizer(model)
    ids = torch.randint(config.vocab_size or 1, (batch, config.context + 1), device=device)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def unmatched(totals: Mapping[str, int], baseline: str) -> Sequence[str]:
    """Arms whose parameters differ from the baseline's by more than `TOLERANCE`."""
    wanted = totals[baseline]
    return [name for name, total in totals.items() if abs(total - wanted) > TOLERANCE * wanted]
