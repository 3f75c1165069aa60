"""Measures and draws the figures of docs/concepts/ on the bundled backbone.

    python scripts/figures/concepts.py        # 3 minutes on 2 cores

Nothing is trained. The two modulators are in their state before the first step (LERP initialised with WordNet's
geometry), so the figures show the effect of α alone.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from datamodules import WordNetDataModule
from modulant.backbones.families import stream_of
from modulant.backbones.loading import RandomEncoder
from modulant.backbones.t5 import load_backbone, load_config
from modulant.geometry import pentachoron_cv, pentachoron_draws, pentachoron_volumes, regular_simplex
from modulant.metrics import BANDS, EntryRepresentations, RelationalAlignment
from modulant.reports.drawing.plotting import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, dress, save
from modulant.reports.wording import number
from modulators import FieldModulator, Geometry, LerpModulator, Modulator, attach
from modulators.initialisation import initial_geometry, lexical_data

FIGURES = Path(__file__).resolve().parents[2] / "docs" / "figures"
ALPHAS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.35)
SAMPLE = 8  # batches of definitions, where each α needs a pass


def main() -> None:
    torch.manual_seed(0)
    data = WordNetDataModule(backbone="mini")
    data.setup()
    model, stream = load_backbone("mini"), stream_of(load_config("mini"))
    print("encoding the definitions of all kept synsets")
    base = population(data, lambda ids, mask: model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state)
    lerp = LerpModulator(stream)
    words = lexical_data(data.entries, data.population.synsets, data.population.held_out, base)
    initial = initial_geometry(Geometry(), words, model.shared.weight, lerp.n_geometric_dims)
    lerp.place_geometry(initial.rows, initial.projection)
    field = FieldModulator(stream)
    print("modulating")
    save(stream_figure(data, model, {"LERP": lerp, "field": field}), FIGURES / "concepts_stream.png")
    print("drawing pentachora")
    save(pentachoron_figure(base), FIGURES / "concepts_pentachoron.png")
    print("measuring all pairs")
    save(relational_figure(data, model, base), FIGURES / "concepts_relational.png")


def population(data: WordNetDataModule, read: Any) -> Tensor:
    """The representation (N, D) of each kept synset's definition."""
    width = load_config("mini").d_model
    representations = EntryRepresentations(len(data.population), width)
    with torch.no_grad():
        for rows, ids, mask in data.population_batches():
            representations.update(rows, read(ids, mask), mask)
    return representations.compute()


# docs/concepts/modulators.md


def stream_figure(data: WordNetDataModule, model: Any, modulators: dict[str, Modulator]) -> Figure:
    batches = [(ids, mask) for _, ids, mask in data.population_batches()][::5][:SAMPLE]
    figure = Figure(figsize=(12.5, 3.9), initial="constrained")
    plane, factors, output = figure.subplots(1, 3)
    _blend(plane)
    _factors(factors, modulators["field"], model, batches[0])
    for (name, modulator), colour in zip(modulators.items(), (BLUE, ORANGE), strict=True):
        values = [_preservation(model, modulator, alpha, batches) for alpha in ALPHAS]
        output.plot(ALPHAS, values, color=colour, marker="o", markersize=4, label=name)
        print(f"  {name}: " + ", ".join(f"α {a} → {v:.4f}" for a, v in zip(ALPHAS, values, strict=True)))
    output.set_xscale("log")
    dress(
        output, "c. What is left of a representation", "injection strength α, every layer", "cosine with the original"
    )
    output.legend(frameon=False)
    return figure


def _blend(axis: Axes) -> None:
    x, target = np.array([1.0, 0.25]), np.array([0.15, 0.95])
    for end, colour in ((x, INK), (target, GREEN)):
        axis.annotate("", tuple(end), (0, 0), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.8})
    axis.plot(*np.stack([x, target]).T, color=GREY, linestyle=":", linewidth=1.2)
    for alpha in (0.1, 0.35, 0.7):
        point = (1 - alpha) * x + alpha * target
        axis.annotate(
            "", tuple(point), (0, 0), arrowprops={"arrowstyle": "-|>", "color": BLUE, "lw": 1.2, "alpha": 0.8}
        )
        axis.text(point[0] + 0.03, point[1] + 0.03, f"α = {alpha}", color=BLUE, fontsize=9)
    axis.text(x[0] - 0.12, x[1] - 0.11, "stream h", color=INK)
    axis.text(target[0] - 0.12, target[1] + 0.04, "point W g[token]", color=GREEN)
    axis.set(xlim=(-0.05, 1.25), ylim=(-0.05, 1.12), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_title("a. LERP: h ← (1 − α) h + α · W g[token]", loc="left", fontsize=11)


def _factors(axis: Axes, field: Any, model: Any, batch: tuple[Tensor, Tensor]) -> None:
    """The factor of each dimension of one token, for two strengths."""
    ids, mask = batch
    with torch.no_grad():
        hidden = model.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[2][0, 3]
        for alpha, colour in ((0.1, ORANGE), (0.35, VERMILION)):
            scale = alpha / float(field.alphas[2].mean())
            factor = field(hidden[None, None], 2, alpha_scale=scale)[0, 0] / hidden
            axis.plot(factor, color=colour, linewidth=1.2, label=f"α = {alpha}")
            assert torch.equal(factor[field.n_active :], torch.ones_like(factor[field.n_active :]))
    axis.axvspan(field.n_active - 0.5, len(hidden) - 0.5, color="#eeeeee", zorder=0)
    axis.text(field.n_active + 1, 0.985, "null\nspace:\nuntouched", fontsize=9, color=GREY, va="top")
    axis.set_ylim(top=1.02)
    dress(axis, "b. The field: each dimension times at most 1", "dimension of the stream", "factor")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(0.0, 0.42))


def _preservation(model: Any, modulator: Modulator, alpha: float, batches: list[tuple[Tensor, Tensor]]) -> float:
    """Mean cosine of a definition's representation with its own at α = 0."""
    handle = attach(model, modulator)
    cosines = []
    factor = alpha / float(modulator.alphas.detach().mean())
    with torch.no_grad():
        for ids, mask in batches:
            means = []
            for scale in (0.0, factor):
                with handle.scaled(scale):
                    hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
                means.append((hidden * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True))
            cosines.append(torch.cosine_similarity(means[0], means[1], dim=-1))
    handle.remove()
    return float(torch.cat(cosines).mean())


# docs/concepts/pentachora.md


def pentachoron_figure(points: Tensor) -> Figure:
    figure = Figure(figsize=(12.5, 3.9), initial="constrained")
    drawing, histogram, curve = figure.subplots(1, 3)
    _two_pentachora(drawing, points)
    null = torch.randn(points.shape, generator=torch.Generator().manual_seed(1)) * points.std(0)
    bins = np.linspace(0, 3.2, 60)
    for cloud, name, colour in ((null, "Gaussian, same scales", GREY), (points, "mini's definitions", BLUE)):
        volumes = pentachoron_volumes(cloud, 20_000, 42)
        cv = float(pentachoron_cv(cloud, 20_000, 42))
        histogram.hist((volumes / volumes.mean()).numpy(), bins, color=colour, alpha=0.6, label=f"{name}: CV {cv:.3f}")
        print(f"  {name}: CV {cv:.4f}")
    histogram.legend(frameon=False, fontsize=9)
    histogram.set_ylim(top=3300)
    dress(histogram, "b. Volumes of 20,000 random pentachora", "volume / mean volume", "pentachora")
    dims = [4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256]
    generator = torch.Generator().manual_seed(2)
    cvs = [float(pentachoron_cv(torch.randn(4000, d, generator=generator), 20_000, 42)) for d in dims]
    curve.plot(dims, cvs, color=GREY, marker="o", markersize=4, label="isotropic Gaussian points")
    curve.axhline(float(pentachoron_cv(points, 20_000, 42)), color=BLUE, label=f"mini, {points.shape[1]} dimensions")
    curve.axhspan(0.20, 0.23, color=GREEN, alpha=0.25, linewidth=0, label="the source's “universal band”")
    curve.set_xscale("log", base=2)
    curve.set_xticks([4, 16, 64, 256], ["4", "16", "64", "256"])
    dress(curve, "c. A CV counts dimensions, more than anything", "dimensions", "CV of the volumes")
    curve.legend(frameon=False, fontsize=9)
    print("  Gaussian: " + ", ".join(f"{d}: {cv:.3f}" for d, cv in zip(dims, cvs, strict=True)))
    return figure


def _two_pentachora(axis: Axes, points: Tensor) -> None:
    """The regular one, projected to a pentagon, and one of five definitions, projected on its two main axes."""
    drawn = points[pentachoron_draws(len(points), 1, 5)[0]]
    turns = torch.arange(5) * 2 * torch.pi / 5
    pentagon = torch.stack([turns.sin(), turns.cos()], dim=-1)
    regular = regular_simplex(4, 8)
    for corners, plane, centre, colour, name in (
        (regular, regular.T @ pentagon, 0.0, GREEN, "regular"),
        (drawn, torch.linalg.svd(drawn - drawn.mean(0)).Vh[:2].T, 2.6, BLUE, "five definitions"),
    ):
        flat = (corners - corners.mean(0)) @ plane
        flat = flat / flat.norm(dim=1).max()
        for i in range(5):
            for j in range(i):
                a, b = flat[i], flat[j]
                axis.plot([a[0] + centre, b[0] + centre], [a[1], b[1]], color=colour, linewidth=1, alpha=0.7)
        axis.scatter(flat[:, 0] + centre, flat[:, 1], color=colour, s=26, zorder=3)
        axis.text(centre, -1.35, name, ha="center", color=colour)
    axis.set(aspect="equal", xticks=[], yticks=[], ylim=(-1.5, 1.25))
    axis.spines[:].set_visible(False)
    axis.set_title("a. Five points, ten edges, one volume in 4-D", loc="left", fontsize=11)


# docs/concepts/relational.md


def relational_figure(data: WordNetDataModule, model: Any, base: Tensor) -> Figure:
    random = RandomEncoder(load_config("mini"), 42)
    clouds = {
        "mini's encoder": (base, BLUE),
        "static embeddings": (population(data, lambda ids, mask: model.shared(ids)), ORANGE),
        "untrained encoder": (population(data, random), GREY),
    }
    bands = BANDS[1:]  # no two distinct synsets reach the first
    figure = Figure(figsize=(7.2, 3.9), initial="constrained")
    axis = figure.subplots()
    for name, (points, colour) in clouds.items():
        metric = RelationalAlignment(data.path_distances(), data.population.part)
        metric.update(points)
        found = {key: float(value) for key, value in metric.compute().items()}
        means = [found[f"band/{low:.2f}_{high:.2f}"] for low, high in bands]
        axis.plot(range(len(bands)), means, color=colour, marker="o", markersize=4)
        axis.text(
            len(bands) - 0.9, means[-1], f"{name}: Pearson {number(found['pearson'], 3)}", color=colour, va="center"
        )
        print(f"  {name}: Pearson {found['pearson']:.4f}; " + ", ".join(f"{mean:.3f}" for mean in means))
    axis.set_xticks(range(len(bands)), [f"{low:.2f}–{high:.2f}" for low, high in bands])
    axis.set_xlim(-0.3, len(bands) + 2.2)
    dress(axis, "Mean cosine of two definitions by the path similarity of their synsets", "path similarity", "cosine")
    return figure


if __name__ == "__main__":
    main()
