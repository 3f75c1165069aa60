"""Measures and draws the figure of docs/concepts/waves.md: sums of weights, the locality prior, phases in few bits.

python scripts/figures/waves.py        # seconds
"""

import math
import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from modulant.reports.drawing.plotting import BLUE, GREY, INK, ORANGE, VERMILION, dress, save
from wavegpt import interference_attention
from wavegpt.attention.phases import ladder, turned
from wavegpt.embedding import frequencies

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
T, W = 256, 24  # tokens; waves of a head of 48


def main() -> None:
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    sums(axes[0])
    locality(axes[1])
    precision(axes[2])
    save(figure, FIGURES / "concepts_waves.png")


def sums(axis: Axes) -> None:
    """Panel a: what a token's weights add up to, with random amplitudes and phases."""
    generator = torch.Generator().manual_seed(0)
    shape = (8, 4, T, W)
    amplitudes = [torch.rand(shape, generator=generator, dtype=torch.float64) + 0.2 for _ in range(2)]
    phases = [math.tau * torch.rand(shape, generator=generator, dtype=torch.float64) for _ in range(2)]
    parts = (amplitudes[0], phases[0], amplitudes[1], phases[1], torch.ones(8, 4, T, 1, dtype=torch.float64))
    t = range(1, T + 1)
    for normalise, colour in (("energy", VERMILION), ("sum", BLUE), ("softmax", INK)):
        total = interference_attention(*parts, normalise=normalise, scale=48**-0.5).mean((0, 1, 3))
        style = ":" if normalise == "softmax" else "-"
        axis.plot(
            t, total, color=colour, label=normalise + (" (the source)" if normalise == "energy" else ""), ls=style
        )
        print(f"{normalise}: sums at 1, 16, 64, 256: {[round(float(total[i - 1]), 2) for i in (1, 16, 64, 256)]}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log", base=2)
    dress(axis, "a. What a token's weights add up to", "position", "sum of weights")
    axis.legend(frameon=False, fontsize=8)


def locality(axis: Axes) -> None:
    """Panel b: weights by lag at the start, where all tokens have the amplitude `amp_init` and phase 0."""
    angle = turned(torch.arange(T), ladder(W, 1e4), torch.float64).expand(1, 1, T, W)
    for amplitude, colour, label in ((0.69, BLUE, "interference, amp_init 0.69"), (0.05, ORANGE, "amp_init 0.05")):
        weights = _weights(torch.full((1, 1, T, W), amplitude, dtype=torch.float64), angle)
        axis.plot(range(64), weights[:64], color=colour, label=label)
        print(
            f"amp_init {amplitude}: lags 0, 1, 8, 63: {[round(float(weights[i]) * T, 2) for i in (0, 1, 8, 63)]} / {T}"
        )
    axis.axhline(1 / T, color=GREY, ls=":", label="uniform; RoPE starts here")
    dress(axis, "b. Before training: weights by lag", "lag in tokens", f"weight, of {T} tokens")
    axis.legend(frameon=False, fontsize=8)


def _weights(amplitude: Tensor, angle: Tensor) -> Tensor:
    """Of the last token, by lag."""
    eye = torch.eye(T, dtype=torch.float64).expand(1, 1, T, T)
    return interference_attention(amplitude, angle, amplitude, angle, eye, scale=48**-0.5)[0, 0, -1].flip(0)


def precision(axis: Axes) -> None:
    """Panel c: the largest error of sin(2πnω), n ≤ 4, by vocabulary: the source's ω = √(rank + 1), and bounded ones."""
    sizes = [2**k for k in range(6, 17)]
    for kind, colour in ((torch.bfloat16, VERMILION), (torch.float16, ORANGE), (torch.float32, BLUE)):
        name = str(kind).removeprefix("torch.")
        source = [_error(_argument(V, None), kind) for V in sizes]
        bounded = [_error(_argument(V, (0.1, 3.0)), kind) for V in sizes]
        axis.plot(sizes, source, color=colour, label=f"{name}, the source's")
        axis.plot(sizes, bounded, color=colour, ls=":", label=f"{name}, bounded")
        print(f"{name}: V = 1,024: {source[4]:.1e}, bounded {bounded[4]:.1e}; V = 65,536: {source[-1]:.1e}")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_ylim(bottom=1e-9)
    dress(axis, "c. Largest error of a wave's sine", "vocabulary", "error")
    axis.legend(frameon=False, fontsize=7)


def _argument(vocabulary: int, bounds: tuple[float, float] | None) -> Tensor:
    omega = frequencies(torch.arange(vocabulary), bounds)
    turn = math.tau if bounds is None else 1.0  # bounded frequencies are seen at times of their own, from 1 / 3 on
    return turn * omega[:, None] * torch.arange(1, 5, dtype=torch.float64)


def _error(argument: Tensor, kind: torch.dtype) -> float:
    return float((argument.to(kind).double().sin() - argument.sin()).abs().max())


if __name__ == "__main__":
    main()
