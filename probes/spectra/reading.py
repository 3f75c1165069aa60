"""The passes over all passages, and what each is reduced to while the model runs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from probes.findings import Findings
from probes.options import with_bar
from probes.spectra.dimensions import ROWS, measure_dimensions, some_rows
from probes.spectra.heads import Agreement, TextHeads, add_heads, measure_heads
from probes.spectra.passes import output_weights, place_of, read
from probes.spectra.texts import LEAST, Passages, Text
from probes.spectra.tokens import VARIANTS, Along, TextTokens, TokenFigures, along, grid_for, measure_text

SHUFFLES = 4  # of the input, over all texts at least


@dataclass(eq=False)
class Reading:
    """What the passages of one model are reduced to.

    Attributes:
        tokens: layer → variant → texts.
        rows: layer → some states of each text.
        heads: of each text.
        damaged: layers whose states are not finite.
        damaged_heads: layers whose heads' outputs are not.
    """

    tokens: dict[int, dict[str, list[TextTokens]]] = field(default_factory=dict)
    rows: dict[int, list[Tensor]] = field(default_factory=dict)
    heads: list[TextHeads] = field(default_factory=list)
    damaged: set[int] = field(default_factory=set)
    damaged_heads: set[int] = field(default_factory=set)


def measure_texts(
    backbone: Backbone,
    passages: Passages,
    layers: Sequence[int],
    parts: Sequence[str],
    found: Findings,
    prefix: str,
    seed: int,
    curves: dict[str, Any],
) -> None:
    """Parts ``dimensions``, ``tokens`` and ``heads``; intervals and spectra go to `curves`.

    After Ctrl-C, texts that are done are measured; the interrupt goes on.
    """
    if not passages.texts:
        why = f"no passage of at least {LEAST} tokens"
        for part in parts:
            names = ("concentration", "p") if part == "dimensions" else ("lag1",) if part == "tokens" else ("ppc", "z")
            found.leave_out(f"{prefix}{part}", names, why)
        return
    reading, interrupted = Reading(), False
    grid = grid_for([len(text.measured) for text in passages.texts])
    try:
        for i, text in enumerate(with_bar(passages.texts, f"{prefix.removesuffix('/') or 'model'}: passages")):
            _read_text(backbone, text, layers, parts, reading, len(passages.texts), grid, seed + i)
    except KeyboardInterrupt:
        interrupted = True
        if not reading.tokens and not reading.heads and not reading.rows:
            raise
    _figures(reading, parts, found, prefix, grid, seed, curves)
    if interrupted:
        raise KeyboardInterrupt


def _read_text(
    backbone: Backbone,
    text: Text,
    layers: Sequence[int],
    parts: Sequence[str],
    reading: Reading,
    n_texts: int,
    grid: int,
    seed: int,
) -> None:
    """The text as it is and with its tokens shuffled; nothing is kept of a text that is not gone through."""
    shuffles, count = max(1, SHUFFLES // n_texts), -(-ROWS // n_texts)
    generator = torch.Generator().manual_seed(seed)
    shuffled: dict[tuple[int, str], list[Along]] = {}
    shuffled_heads: dict[int, list[Agreement]] = {}
    tokens: dict[tuple[int, str], TextTokens] = {}
    rows: dict[int, Tensor] = {}
    observed: dict[int, Agreement] = {}

    def aside(layer: int, states: Tensor) -> None:
        if not states.isfinite().all():
            reading.damaged.add(layer)
        for variant in VARIANTS:
            shuffled.setdefault((layer, variant), []).append(along(states, variant, grid))

    def heads_aside(layer: int, mixed: Tensor) -> None:
        if not mixed.isfinite().all():
            reading.damaged_heads.add(layer)
        if layer not in reading.damaged_heads:
            shuffled_heads.setdefault(layer, []).append(measure_heads(mixed, output_weights(backbone, layer), None))

    def states_of(layer: int, states: Tensor) -> None:
        if not states.isfinite().all():
            reading.damaged.add(layer)
        rows[layer] = some_rows(states, count)
        for variant in VARIANTS if "tokens" in parts else ():
            tokens[layer, variant] = measure_text(states, shuffled[layer, variant], variant, grid, seed)

    def heads_of(layer: int, mixed: Tensor) -> None:
        if not mixed.isfinite().all():
            reading.damaged_heads.add(layer)
        if layer not in reading.damaged_heads:
            observed[layer] = measure_heads(mixed, output_weights(backbone, layer), generator)

    own = "tokens" in parts, "heads" in parts
    for _ in range(shuffles if any(own) else 0):
        other = text.shuffled(generator)
        read(backbone, other, layers, aside if own[0] else None, heads_aside if own[1] else None)
    read(backbone, text, layers, states_of, heads_of if own[1] else None)
    for (layer, variant), measured in tokens.items():
        reading.tokens.setdefault(layer, {}).setdefault(variant, []).append(measured)
    for layer, some in rows.items():
        reading.rows.setdefault(layer, []).append(some)
    if own[1]:
        reading.heads.append(TextHeads(observed, shuffled_heads))


def _figures(
    reading: Reading,
    parts: Sequence[str],
    found: Findings,
    prefix: str,
    grid: int,
    seed: int,
    curves: dict[str, Any],
) -> None:
    """Figures of what was read."""
    for layer in sorted(reading.damaged):
        found.leave_out(f"{prefix}{place_of(layer)}", ("lag1", "slope", "flatness"), "the states are not finite")
    if "dimensions" in parts:
        whole = {layer: rows for layer, rows in reading.rows.items() if layer not in reading.damaged}
        measure_dimensions(whole, found, prefix, seed)
    if "tokens" in parts:
        figures = TokenFigures(found, prefix, grid, seed)
        texts = {layer: texts for layer, texts in reading.tokens.items() if layer not in reading.damaged}
        if texts:
            figures.add(texts)
        curves["intervals"] |= figures.intervals
        curves["spectra"] |= {"frequencies": figures.frequencies.tolist()}
        curves["spectra"].setdefault("power", {}).update(figures.curves)
    if "heads" in parts:
        for layer in sorted(reading.damaged_heads):
            found.leave_out(f"{prefix}{place_of(layer)}/heads", ("cosine",), "their outputs are not finite")
        add_heads(reading.heads, reading.damaged_heads, found, prefix)
