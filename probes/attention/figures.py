"""Figures by layer with intervals over texts and their nulls, where entropy drops, and what attention that says nothing
gives.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from modulant.geometry import association, bootstrap_counts, middle, resampled_means
from probes.attention.lens import WITHOUT, Seen
from probes.attention.measure import DIRICHLET, MODEL, PERMUTED, SINK_DIRICHLET, UNIFORM, Layers, Pass
from probes.findings import Findings, Null

RATE = 0.3  # of a query's weight: a head whose mean sink is above it counts for the rate
REPLICATES = 2000
_FEW = 3  # texts; of fewer there is no interval
WORDS = "the same texts with their words shuffled"
_EVEN, _DEALT = "uniform attention", "the same attention, keys permuted"
# Name → unit, and whose figure is its null.
BY_LAYER = {
    "entropy": ("of ln n", "words"),
    "entropy_without_sink": ("of ln n", "words"),
    "sink": ("of the weight", UNIFORM),
    "sink_rate": ("of heads", UNIFORM),
    "distance": ("of the farthest", UNIFORM),
    "spread": ("of the range", UNIFORM),
    "head_divergence": ("of the largest", PERMUTED),
    **{f"top_{name}": ("of queries", "chance") for name in ("first", "special", "punctuation", "own")},
    **{f"mass_{name}": ("of the weight", UNIFORM) for name in ("special", "punctuation", "own")},
}
SOURCE = {"entropy": ("nat", UNIFORM), "coherence": ("", UNIFORM), "head_sync": ("", UNIFORM)}
CONTROLS = (
    *("entropy", "entropy_without_sink", "sink", "sink_rate", "distance", "spread", "head_divergence"),
    "mass_special",
    *("source_coherence", "source_head_sync"),
)


@dataclass(eq=False)
class Found(Findings):
    """Figures, and by their names 95% intervals of a bootstrap over texts."""

    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add_resampled(
        self, name: str, value: float, replicates: Tensor | None, population: str, unit: str = "", null: Any = None
    ) -> None:
        """Store a figure with the middle 95% of its replicates."""
        self.add(name, value, population, unit, null)
        if replicates is not None and self.figures[name] is not None:
            low, high = middle(replicates)
            if math.isfinite(float(low + high)):
                self.intervals[name] = (float(low), float(high))


def by_text(figures: Mapping[str, Tensor], name: str) -> Tensor:
    """(N, L) means over heads; of what is of a layer as it is."""
    if name == "sink_rate":
        sink = figures["sink"]
        return torch.where(sink.isfinite(), (sink > RATE).double(), torch.nan).nanmean(2)
    values = figures[name]
    return values.nanmean(2) if values.ndim == 3 else values


def counts_of(texts: int, seed: int) -> Tensor | None:
    """Replicates of a bootstrap; None of too few texts."""
    return bootstrap_counts(texts, REPLICATES, seed) if texts >= _FEW else None


def add_layers(found: Found, prefix: str, layers: Layers, shuffled: Layers | None, counts: Tensor | None) -> None:
    """``<prefix>layer_03/entropy`` … and ``<prefix>source/layer_03/coherence`` …, with intervals and nulls."""
    stack = f"{layers.attention.name}/" if layers.attention.name else ""
    population = f"{len(layers['sink'])} texts × {layers['sink'].shape[2]} heads"
    names = {f"{stack}layer_%02d/{name}": (name, *what) for name, what in BY_LAYER.items()}
    if not layers.attention.cross:
        names |= {f"source/{stack}layer_%02d/{name}": (f"source_{name}", *what) for name, what in SOURCE.items()}
    for place, (name, unit, whose) in names.items():
        if layers.attention.cross and name.endswith("_own"):
            continue
        values, null = by_text(layers.of[MODEL], name), _null_of(layers, shuffled, name, whose)
        replicates = None if counts is None else resampled_means(values, counts)
        for i, layer in enumerate(layers.layers):
            drawn = None if replicates is None else replicates[:, i]
            found.add_resampled(
                prefix + place % layer,
                float(values[:, i].nanmean()),
                drawn,
                population,
                unit,
                null(i) if null else None,
            )
            if not layers[name.replace("sink_rate", "sink")][:, i].isfinite().any():
                found.reasons[prefix + place % layer] = "no query has enough keys to look at, or weights are not finite"
    if not layers.attention.cross:
        _add_phases(found, prefix, stack, layers, population)


def _null_of(layers: Layers, shuffled: Layers | None, name: str, whose: str) -> Any:
    """Layer's place → null of a figure; None where there is none."""
    if whose == "words":
        if shuffled is None:
            return lambda i: Null(_EVEN, [1.0])
        values, what = by_text(shuffled.of[MODEL], name), WORDS
    elif whose == "chance":
        if not layers.of[UNIFORM]:
            return None
        values, what = by_text(layers.of[UNIFORM], name.replace("top", "mass")), "one of its keys at random"
    else:
        if not layers.of[whose]:
            return None
        values, what = by_text(layers.of[whose], name), _EVEN if whose == UNIFORM else _DEALT
    means = values.nanmean(0)
    return lambda i: Null(what, [float(means[i])]) if math.isfinite(float(means[i])) else None


def _add_phases(found: Found, prefix: str, stack: str, layers: Layers, population: str) -> None:
    """``source/layer_03/phase``: direction of the mean over texts; ``…/circular_std`` of heads at the last query."""
    x, y = (layers[f"source_phase_{axis}_last"].nanmean(0) for axis in "xy")
    sync = layers["source_head_sync_last"]
    spread = (-2 * sync.clamp(1e-12, 1).log()).sqrt().nanmean(0)
    for i, layer in enumerate(layers.layers):
        at = f"{prefix}source/{stack}layer_{layer:02d}"
        found.add(f"{at}/phase", float(torch.atan2(y[i], x[i])), population, "radian")
        found.add(f"{at}/circular_std", float(spread[i]), population, "radian", Null(_EVEN, [0.0]))


def add_collapse(found: Found, prefix: str, name: str, layers: Layers, counts: Tensor | None) -> None:
    """``<prefix><name>/layer|low|high|drop|…``: the layer into which entropy drops most.

    A largest drop always exists, on a curve that rises too. So its interval holds for all layers at once (the 95th
    percentile of the largest deviation of any layer), and there is none where that holds 0. ``low`` and ``high`` are
    the middle 95% of the place over texts drawn anew.
    """
    sinks = by_text(layers.of[MODEL], "sink").nanmean(0)
    for ending, what in (("", "entropy"), ("_without_sink", "entropy_without_sink")):
        at = f"{prefix}{name}{ending}"
        names = ("layer", "low", "high", "share", "drop", "drop_low", "drop_high")
        values = by_text(layers.of[MODEL], what)
        why = _no_collapse(layers.layers, values, counts)
        if why or counts is None:
            found.leave_out(at, names, why)
            continue
        drops, drawn = values.nanmean(0).diff(), resampled_means(values, counts).diff(dim=1)
        width = float((drawn - drops).abs().amax(1).quantile(0.95))
        place = int(drops.argmin())
        places = drawn.argmin(1)
        population = f"{len(values)} texts, {len(drops)} steps between layers"
        exists = float(drops[place]) + width < 0
        low, high = middle(places.double())
        first = layers.layers[1]
        share = float((places == place).double().mean())
        drop = float(drops[place])
        numbers = {"drop": drop, "drop_low": drop - width, "drop_high": drop + width}
        if exists:
            numbers |= {"layer": first + place, "low": first + float(low), "high": first + float(high), "share": share}
        else:
            found.leave_out(at, names[:4], "the interval of the largest drop holds 0")
        for key, number in numbers.items():
            unit = "of ln n" if key.startswith("drop") else "of replicates" if key == "share" else "layer"
            found.add(f"{at}/{key}", number, population, unit, Null("no drop", [0.0]) if key == "drop" else None)
        if exists and not ending:
            found.add(f"{at}/sink_before", float(sinks[place]), population, "of the weight")
            found.add(f"{at}/sink_after", float(sinks[place + 1]), population, "of the weight")
    curve = by_text(layers.of[MODEL], "source_entropy").nanmean(0)
    source = f"{prefix}source/{name}_layer"
    if curve.isfinite().all() and len(curve) > 1:
        place = int(curve.diff().argmin())
        what = "the layer before the largest drop of Σ −a ln a, which every curve has"
        found.add(source, layers.layers[place], what, "layer")


def _no_collapse(layers: Sequence[int], values: Tensor, counts: Tensor | None) -> str:
    if len(layers) < 2 or list(layers) != list(range(layers[0], layers[-1] + 1)):
        return "layers one after another are needed"
    if counts is None:
        return f"fewer than {_FEW} texts have no interval"
    return "" if values.nanmean(0).isfinite().all() else "entropy is undefined in a layer"


def add_sink(found: Found, prefix: str, layers: Layers, seed: int) -> None:
    """``<prefix>sink/entropy_r``: over layers, how entropy goes with the sink; and without it."""
    sink = by_text(layers.of[MODEL], "sink").nanmean(0)
    curves = torch.stack([by_text(layers.of[MODEL], k).nanmean(0) for k in ("entropy", "entropy_without_sink")])
    if len(sink) < 4:
        found.leave_out(f"{prefix}sink", ("entropy_r", "entropy_without_sink_r"), "fewer than four layers")
        return
    test = association(curves, sink, torch.ones(len(sink)), torch.zeros(len(sink), dtype=torch.long), seed=seed)
    for i, name in enumerate(("entropy_r", "entropy_without_sink_r")):
        found.add(f"{prefix}sink/{name}", float(test.r[i]), f"{len(sink)} layers", "", Null("layers permuted", [0.0]))
        found.add(f"{prefix}sink/{name.removesuffix('r')}p", float(test.p[i]), "4,999 permutations")


def add_controls(found: Found, prefix: str, layers: Layers, shuffled: Layers | None) -> None:
    """``<prefix>control/uniform/head_sync`` …: means over texts, heads and layers of attention that says nothing."""
    clouds = {"model": layers.of[MODEL]} | {
        whose: layers.of[whose] for whose in (UNIFORM, DIRICHLET, SINK_DIRICHLET, PERMUTED) if layers.of.get(whose)
    }
    if shuffled is not None:
        clouds["shuffled"] = shuffled.of[MODEL]
    for whose, figures in clouds.items():
        for name in CONTROLS:
            value = float(by_text(figures, name).nanmean())
            key = name.removeprefix("source_")
            found.add(f"{prefix}control/{whose}/{key}", value, f"{len(layers['sink'])} texts, all heads and layers")


def add_lens(
    found: Found, prefix: str, read: Pass, shuffled: Pass | None, layers: Sequence[int], counts: Tensor | None
) -> None:
    """``<prefix>layer_03/lens_entropy`` …, ``<prefix>lens/commit_layer``, ``<prefix>next/confidence`` ….

    Means over texts with intervals; the null is the same of texts with their words shuffled.
    """
    seen = read.seen
    if seen is None:
        found.leave_out(f"{prefix}lens", ("commit_layer",), WITHOUT)
        found.leave_out(f"{prefix}next", ("confidence", "top", "unigram"), WITHOUT)
        return
    n, population = seen.entropy.shape[1], f"{len(seen.entropy)} texts, {read.predicted}"
    stack = f"{read.next_stack}/" if read.next_stack else ""

    def add(name: str, unit: str, of: Callable[[Seen], Tensor]) -> None:
        values = of(seen)
        drawn = None if counts is None else resampled_means(values, counts)
        null = Null(WORDS, [float(of(shuffled.seen).mean())]) if shuffled and shuffled.seen else None
        found.add_resampled(f"{prefix}{name}", float(values.mean()), drawn, population, unit, null)

    for i in [0, *(layer + 1 for layer in layers if layer + 1 < n)]:
        at = f"{stack}embedded" if i == 0 else f"{stack}layer_{i - 1:02d}"
        for name in ("entropy", "divergence", "unigram"):
            add(f"{at}/lens_{name}", "nat", partial(_after, i, name))
        found.add(f"{prefix}{at}/lens_rank", float(seen.rank[:, i].median()), population, "median rank")
    add("lens/commit_layer", "layers", lambda some: some.commit.double())
    add("next/confidence", "nat", lambda some: -some.entropy[:, -1])
    add("next/top", "", lambda some: some.top)
    add("next/unigram", "nat", lambda some: some.unigram[:, -1])


def _after(layers: int, name: str, seen: Seen) -> Tensor:
    """(N,) a curve of the lens after as many layers."""
    return cast(Tensor, getattr(seen, name)[:, layers])


def add_difference(found: Found, layers: Layers, original: Layers, counts: Tensor | None) -> None:
    """``difference/layer_03/entropy``: modulated minus original on the same texts, paired."""
    stack = f"{layers.attention.name}/" if layers.attention.name else ""
    for name in ("entropy", "entropy_without_sink", "sink", "head_divergence"):
        values = by_text(layers.of[MODEL], name) - by_text(original.of[MODEL], name)
        replicates = None if counts is None else resampled_means(values, counts)
        for i, layer in enumerate(layers.layers):
            found.add_resampled(
                f"difference/{stack}layer_{layer:02d}/{name}",
                float(values[:, i].nanmean()),
                None if replicates is None else replicates[:, i],
                f"{len(values)} texts, paired",
                BY_LAYER[name][0],
                Null("no difference", [0.0]),
            )


def curves_of(layers: Layers) -> dict[str, Any]:
    """What charts show beyond figures: spread over texts, and maps of heads."""
    curves: dict[str, Any] = {"layers": layers.layers}
    for name in ("entropy", "entropy_without_sink"):
        values = by_text(layers.of[MODEL], name)
        ends = values.nanquantile(torch.tensor([0.05, 0.95], dtype=values.dtype), dim=0)
        curves[name] = {"low": ends[0].tolist(), "high": ends[1].tolist()}
    if layers.of[PERMUTED]:
        dealt, names = layers.of[PERMUTED], ("coherence", "head_sync")
        curves["permuted"] = {name: by_text(dealt, f"source_{name}").nanmean(0).tolist() for name in names}
    curves["heads"] = {name: layers[name].nanmean(0).tolist() for name in ("sink", "head_divergence")}
    return curves
