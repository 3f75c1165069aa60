"""Held-out rows compared through their pairs, volumes and digits, with no alignment."""

from typing import Any

import torch
from torch import Tensor

from modulant.geometry import (
    biased_cka,
    cosines,
    gram,
    mantel,
    nearest_neighbours,
    pair_correlation,
    pair_ranks,
    partial_correlation,
    pentachoron_draws,
    pentachoron_volumes,
    permuted_cka,
    unbiased_cka,
)
from probes.options import with_bar
from probes.scales.fits import Centred
from probes.scales.matching import Matched, Side
from probes.scales.record import PERMUTED_ROWS, Record
from probes.terrain.words import ORDERED, PERMUTED, Vocabulary

ROWS = 2_000  # held-out, at most, whose pairs are formed
MANTEL_ROWS, PERMUTATIONS = 1_000, 999
NEIGHBOURS = 10
PENTACHORA = 20_000
_PUBLISHED = 1_000  # pentachora
_POINTS = 1_500  # of the scatter
_TOGETHER = 25  # resamples


def measure_pairs(matched: Matched, record: Record) -> dict[str, Any]:
    """Store ``cka/…``, ``rsa/…`` and ``neighbours/…``. Returns points of the scatter of cosines and of its null."""
    small, large = (rows[:ROWS] for rows in Centred.of(matched).held_out)
    n = len(small)
    population = f"{n * (n - 1) // 2:,} pairs of {n:,} held-out {matched.noun}"
    weights = record.weights(n).double().to(small.device)

    k, l = gram(small), gram(large)
    drawn = permuted_cka(k, l, record.nulls, record.seed)
    record.add(
        "cka/unbiased", float(unbiased_cka(k, l)), population, PERMUTED_ROWS, drawn[:, 0].tolist(),
        unbiased_cka(k, l, weights),
    )  # fmt: skip
    record.add("cka/biased", float(biased_cka(k, l)), population, PERMUTED_ROWS, drawn[:, 1].tolist())
    del k, l

    x, y = cosines(small), cosines(large)
    orders = [order.to(y.device) for order in record.orders(n)]
    permuted = orders[0]
    curve = {"matched": _scatter(x, y), "permuted": _scatter(x, y[permuted][:, permuted])}
    rank_x, rank_y = pair_ranks(x), pair_ranks(y)
    drawn_r = [float(pair_correlation(rank_x, rank_y[order][:, order])) for order in with_bar(orders, "permuting rows")]
    rho = float(pair_correlation(rank_x, rank_y))
    record.add("rsa/spearman", rho, population, PERMUTED_ROWS, drawn_r, pair_correlation(rank_x, rank_y, weights))
    some = min(n, MANTEL_ROWS)
    test = mantel(pair_ranks(x[:some, :some]), pair_ranks(y[:some, :some]), PERMUTATIONS, record.seed)
    record.add("rsa/p", test.p, f"{PERMUTATIONS} permutations of {some:,} {matched.noun} (Mantel)")
    drawn_r = [float(pair_correlation(x, y[order][:, order])) for order in orders]
    record.add("rsa/pearson", float(pair_correlation(x, y)), population, PERMUTED_ROWS, drawn_r)
    del x, y, rank_x, rank_y

    near, far = (nearest_neighbours(rows, NEIGHBOURS) for rows in (small, large))
    overlap = (near & far).sum(1).double() / NEIGHBOURS
    drawn_r = [float((near & far[order][:, order]).sum()) / (NEIGHBOURS * n) for order in orders]
    record.add(
        "neighbours/overlap", float(overlap.mean()), f"{NEIGHBOURS} neighbours of {n:,} held-out {matched.noun}",
        PERMUTED_ROWS, drawn_r, weights @ overlap / weights.sum(1),
    )  # fmt: skip
    record.add("neighbours/chance", NEIGHBOURS / (n - 1), "closed form")
    return {"scatter": curve}


def measure_volumes(matched: Matched, record: Record) -> None:
    """Pentachora of the same five held-out rows in both models: ``volumes/…``.

    A volume grows with the distances of its corners from the mean; ``volumes/r_partial`` is what is left without them.
    """
    small, large = (rows[:ROWS] for rows in Centred.of(matched).held_out)
    n = len(small)
    draws = pentachoron_draws(n, PENTACHORA, record.seed).to(small.device)
    population = f"{PENTACHORA:,} pentachora of {n:,} held-out {matched.noun}"
    v, lengths = _log_volumes(small, draws, record.seed)
    w, other_lengths = _log_volumes(large, draws, record.seed)
    counts = record.weights(n).double().to(small.device)
    given = torch.stack([lengths, other_lengths], 1)
    solid = v.isfinite() & w.isfinite()  # in both: the same five rows

    def both(w: Tensor, given: Tensor, weights: Tensor | None = None) -> Tensor:
        kept = solid & w.isfinite()
        some = None if weights is None else weights[:, kept]
        plain, partial = (partial_correlation(v[kept], w[kept], g[kept], some) for g in (given[:, :0], given))
        return torch.stack([plain, partial])

    drawn = []
    for order in with_bar(record.orders(n), "volumes of permuted rows", record.nulls):
        moved, moved_lengths = _log_volumes(large[order.to(large.device)], draws, record.seed)
        drawn.append(both(moved, torch.stack([lengths, moved_lengths], 1))[:, 0])
    null = torch.stack(drawn, 1)
    parts = [both(w, given, some[:, draws].prod(2)) for some in counts.split(_TOGETHER)]
    replicates = torch.cat(parts, 1)
    for i, (name, value) in enumerate(zip(("volumes/r", "volumes/r_partial"), both(w, given)[:, 0], strict=True)):
        record.add(name, float(value), population, PERMUTED_ROWS, null[i].tolist(), replicates[i])
    published = []
    for rows in (small, large):
        volumes = pentachoron_volumes(rows, _PUBLISHED, record.seed, torch.float64)
        published.append(volumes[volumes > 0])  # each by itself, then paired by place
    least = min(map(len, published))
    none = torch.zeros(least, 0, dtype=torch.float64, device=small.device)
    value = float(partial_correlation(published[0][:least], published[1][:least], none))
    record.add("source/volumes/r", value, f"{_PUBLISHED:,} pentachora")


def _log_volumes(points: Tensor, draws: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Logarithms of the volumes, −∞ of flat ones, and Σ ln ‖·‖ over the corners."""
    volumes = pentachoron_volumes(points, len(draws), seed, torch.float64)
    return volumes.log(), points.norm(dim=1).log()[draws].sum(1)


def measure_digits(small: Side, large: Side, record: Record) -> None:
    """Are the digits ordered in each model, and alike in both? ``digits/…``."""
    words = ORDERED["digits"].split()
    found = []
    for side in (small, large):
        vocabulary = Vocabulary(side.embedding, side.tokenizer)
        tokens = vocabulary.single(words)
        if tokens.pieces:
            said = "; ".join(f"{word} = {' '.join(pieces)}" for word, pieces in list(tokens.pieces.items())[:4])
            why = f"not a single token each in {side.name} ({said})"
            record.found.leave_out("digits", ("r", "p", "small_r", "small_p", "large_r", "large_p"), why)
            return
        found.append(cosines(vocabulary.rows(tokens.ids)))
    place = torch.arange(len(words), dtype=torch.float64)
    apart = (place[:, None] - place).abs()
    pairs = f"{len(words) * (len(words) - 1) // 2} pairs of {len(words)}"
    x, y = found
    for prefix, first, second in (("", x, y), ("small_", apart, x), ("large_", apart, y)):
        test = mantel(first, second, seed=record.seed)
        record.add(f"digits/{prefix}r", test.r, pairs, PERMUTED, [0.0])
        record.add(f"digits/{prefix}p", test.p, "19,999 permutations (Mantel)")
        if test.r == test.r:
            record.found.nulls[f"digits/{prefix}r"] |= {"sd": test.null_sd, "n": 19_999}


def _scatter(x: Tensor, y: Tensor) -> list[tuple[float, float]]:
    """Cosines of pairs of rows that share no row with another pair."""
    places = torch.arange(len(x) // 2, device=x.device)[:_POINTS]
    i, j = 2 * places, 2 * places + 1
    return list(zip(x[i, j].tolist(), y[i, j].tolist(), strict=True))
