"""Measures and draws the figure of docs/concepts/fft_over_dimensions.md on the two backbones that are at hand.

python scripts/figures/dimensions.py        # a minute on 2 cores
"""

import sys
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from modulant.backbones.opening import open_model
from modulant.geometry import permuted_power, spectral_concentration
from modulant.reports.drawing.plotting import BLUE, GREY, INK, VERMILION, dress, save
from probes.spectra.passes import EMBEDDED, read
from probes.spectra.texts import passages_of

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
ORDERS = 4000
MODELS = {"mini": BLUE, "all-MiniLM-L6-v2": VERMILION}


def main() -> None:
    states = {name: states_of(name) for name in MODELS}
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    axes = figure.subplots(1, 3)
    ramp(axes[0])
    layers(axes[1], states)
    one_large(axes[2], states)
    save(figure, FIGURES / "concepts_dimensions.png")


def states_of(name: str) -> dict[int, Tensor]:
    """States of every layer on the first passage of WordNet's examples."""
    backbone = open_model(name)
    found: dict[int, Tensor] = {}
    text = passages_of(backbone, backbone.tokenizer, None).texts[0]
    read(backbone, text, range(backbone.shape.n_layers), found.__setitem__)
    return found


def ramp(axis: Axes) -> None:
    """Panel a: the spectrum of 1 … 128, that of its permutations, and the closed form."""
    x = torch.arange(128, dtype=torch.float64)
    orders = torch.rand(ORDERS, 128, generator=torch.Generator().manual_seed(0)).argsort(1)
    permuted = torch.fft.rfft(x[orders]).abs().square().mean(0)[1:]
    level = float(permuted_power(x))
    k = range(1, 65)
    axis.loglog(k, torch.fft.rfft(x).abs().square()[1:], color=BLUE, label="a ramp")
    axis.loglog(k, permuted, color=GREY, label=f"its entries permuted, mean of {ORDERS:,}")
    axis.axhline(level, color=INK, linestyle=":", label="closed form")
    dress(axis, "a. Order alone makes a spectrum", "frequency k", "power")
    axis.legend(frameon=False, fontsize=8)
    ratio = permuted / level
    print(f"ramp: measured over closed form {float(ratio.min()):.3f} to {float(ratio.max()):.3f}")


def layers(axis: Axes, states: dict[str, dict[int, Tensor]]) -> None:
    """Panel b: concentration by layer, and the range of it with the dimensions permuted."""
    for name, by_layer in states.items():
        dim, generator = by_layer[EMBEDDED].shape[1], torch.Generator().manual_seed(0)
        orders = [torch.randperm(dim, generator=generator) for _ in range(99)]
        places = sorted(by_layer)
        own = [float(spectral_concentration(by_layer[layer]).mean()) for layer in places]
        drawn = torch.tensor(
            [[float(spectral_concentration(by_layer[layer][:, order]).mean()) for order in orders] for layer in places]
        )
        low, high = drawn.quantile(0.025, dim=1), drawn.quantile(0.975, dim=1)
        axis.plot(places, own, color=MODELS[name], marker="o", markersize=4, label=name)
        axis.fill_between(places, low, high, color=MODELS[name], alpha=0.2, linewidth=0)
        inside = sum(bool(a <= value <= b) for a, value, b in zip(low, own, high, strict=True))
        print(f"{name}: {[round(value, 4) for value in own]}; inside 95%: {inside} of {len(own)}")
        print("  permuted", [round(float(value), 4) for value in drawn.mean(1)])
    axis.set_xticks(range(-1, 6), ["in", *map(str, range(6))])
    axis.set_ylim(bottom=0)
    dress(axis, "b. Layers; bands: permuted, 95%", "layer", "concentration")
    axis.legend(frameon=False, fontsize=8)


def one_large(axis: Axes, states: dict[str, dict[int, Tensor]]) -> None:
    """Panel c: concentration against the share of the largest dimension, which is made larger by hand."""
    for name, by_layer in states.items():
        rows = by_layer[3] - by_layer[3].mean(1, keepdim=True)
        shares, values = [], []
        for factor in torch.logspace(0, 3, 25):
            larger = rows.clone()
            largest = int(rows.square().mean(0).argmax())
            larger[:, largest] *= factor
            shares.append(float((larger[:, largest].square() / larger.square().sum(1)).mean()))
            values.append(float(spectral_concentration(larger).mean()))
        axis.plot(shares, values, color=MODELS[name], marker="o", markersize=3, label=f"{name}, layer 3")
        print(f"{name}: share {shares[0]:.3f} gives {values[0]:.4f}, {shares[-1]:.4f} gives {values[-1]:.4f}")
    axis.set_ylim(bottom=0)
    dress(axis, "c. One dimension made larger", "share of it in the energy", "concentration")
    axis.legend(frameon=False, fontsize=8)


if __name__ == "__main__":
    main()
