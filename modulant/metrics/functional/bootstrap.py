"""How certain is a correlation over pairs? A bootstrap over synsets: pairs share them, so pairs cannot be resampled.

A replicate draws as many synsets as there are, with replacement, and w_i is how often synset i came; a pair of distinct
synsets i < j then counts w_i w_j times. (A synset beside its own copy is no pair: its similarity of 1 would be an
artefact of the resampling.) The parts of a split are resampled separately: the split is fixed by design and not part of
what is sampled, so every replicate has its sizes.

Every cloud gets the same weights, which depend only on seed, number of synsets and split. So the difference of two
clouds within a replicate is a replicate of the lift, free of the noise that both share.

All replicates are computed at once. With M the pairs' matrix of a term (1, s, s², c, c², s·c of path similarity s and
cosine c, zero at and below the diagonal), Σ w_i w_j M_ij is the dot product of a column of W with that of M W: one
matrix product for a block of rows, a range of columns of one cell of `Layout`, and all replicates. Populations and
parts of speech are unions of cells. The products are in fp32, of values that are centred first and weights that are
small integers; sums over blocks are in fp64. Cosines that crowd come from fp64, as in `fine_counts`, whose thresholds
hold here too.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations_with_replacement

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from modulant.geometry import pearson_from_sums
from modulant.geometry.products import products
from modulant.lexicon.taxonomy import UNREACHABLE
from modulant.metrics.functional.alignment import prefix_of
from modulant.metrics.functional.counts import number_of_bins, place_bins
from modulant.metrics.functional.fine_counts import FLAT, FLAT_FINE, crowded, unit_vectors
from modulant.metrics.functional.intervals import percentile_interval
from modulant.metrics.functional.pairs import POPULATIONS, Flags, Layout, Letters, full_precision
from modulant.storage.results import Arrays

_SHARED = 3  # terms of the similarities alone
_FLAT = 1e-6  # a variance up to this share of the centred mean square is a rounding error of fp32


@torch.no_grad()
def bootstrap_pearson(
    clouds: Sequence[Float[Tensor, "_ _"]],
    distances: UInt8[np.ndarray, "_ _"] | UInt8[Tensor, "_ _"],
    part: Flags,
    replicates: int = 1000,
    seed: int = 42,
    advance: Callable[[], None] | None = None,
    pos: Letters | None = None,
    keep: Callable[[Callable[[], Arrays]], Arrays] | None = None,
) -> Float[Tensor, "clouds replicates columns"]:
    """Replicates of Pearson's r between cosine and path similarity 1 / (1 + d), in fp64, on the CPU.

    Args:
        clouds: representations of the same synsets, one row each; a row of zeros has cosine 0 with all.
        distances: path lengths d of all pairs, 255 where there is no path (such pairs are left out).
        part: of each synset, 0 training, 1 validation, 2 test, or which ones a training never saw.
        replicates: number of resamplings, the same for every cloud.
        seed: seed of the resampling.
        advance: called after each of `bootstrap_steps` blocks.
        pos: part of speech of each synset, as WordNet's letters.
        keep: of a function that makes arrays, those arrays, perhaps from a cache. They are of the first cloud, and
            follow from it and the other arguments alone, whatever the other clouds are.

    Returns:
        r by cloud, replicate and `bootstrap_columns`: all pairs, then `POPULATIONS`, then whatever else the parts and
        parts of speech have. NaN where nothing varies, as among fewer than three synsets.

    Raises:
        ValueError: no cloud, clouds of another length than `part`, or fewer than 2 replicates.
    """
    layout = Layout(part, pos)
    d, n = torch.as_tensor(distances).cpu(), len(layout)
    lengths = [len(cloud) for cloud in clouds]
    if not clouds or set(lengths) != {n}:
        raise ValueError(f"bootstrap_pearson: clouds of {lengths} points; one or more clouds of {n} are needed")
    if d.shape != (n, n):
        raise ValueError(f"bootstrap_pearson: distances of shape {tuple(d.shape)} for {n} synsets")
    device = clouds[0].device if clouds[0].device.type != "mps" else torch.device("cpu")  # Apple's GPU has no fp64
    order = torch.from_numpy(layout.order)
    weights = synset_weights(part, replicates, seed)[:, order].float().contiguous().to(device)  # (R, P)
    d = d[order][:, order].to(device)
    order = order.to(device)
    with full_precision(device):
        units = [_units(cloud.to(device)[order], layout) for cloud in clouds]

        def sums_of(some: list[Tensor], shared: bool) -> Tensor:
            return _weighted_sums(some, d, layout, weights, advance, shared).cpu()

        sums = _kept_sums(units, sums_of, keep)  # (cells, 3 + 3 C, R)
        centres, numbers = [_centres(unit, layout) for unit in units], _pairs(layout)
        sums = torch.stack([_together(sums, cells, centres, numbers) for cells in layout.columns.values()])
    shared, own = sums[:, :_SHARED].unbind(1), sums[:, _SHARED:].unflatten(1, (-1, 3)).unbind(2)
    flat = sums.new_tensor([FLAT_FINE if unit.dtype == torch.float64 else FLAT for unit in units]).unsqueeze(1)
    pairs, s, ss = (term.unsqueeze(1) for term in shared)
    c, cc, sc = own
    return _pearson(pairs, s, ss, c, cc, sc, flat).permute(1, 2, 0).contiguous()


def synset_weights(part: Flags, replicates: int, seed: int) -> Int[Tensor, "replicates points"]:
    """Number of times that each synset is drawn in each replicate, with replacement from its own part.

    Raises:
        ValueError: fewer than 2 replicates.
    """
    if replicates < 2:
        raise ValueError(f"bootstrap_pearson: replicates is {replicates}; an interval needs at least 2")
    of = torch.as_tensor(part).cpu().int()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(replicates, len(of), dtype=torch.int32)
    for value in of.unique():
        own = (of == value).nonzero().squeeze(1)
        for row in weights:
            drawn = torch.randint(len(own), (len(own),), generator=generator)
            row[own] = torch.bincount(drawn, minlength=len(own)).int()
    return weights


def bootstrap_steps(part: Flags, pos: Letters | None = None) -> int:
    """Number of blocks that `bootstrap_pearson` reports to `advance`."""
    return sum(1 for _ in Layout(part, pos).blocks())


def bootstrap_columns(part: Flags, pos: Letters | None = None) -> tuple[str, ...]:
    """Names of the columns that `bootstrap_pearson` returns.

    >>> bootstrap_columns(np.array([0, 1, 2]))
    ('all', 'train', 'mixed', 'held_out', 'validation')
    """
    return tuple(Layout(part, pos).columns)


def lift_intervals(
    original: Float[Tensor, "replicates columns"],
    modulated: Float[Tensor, "replicates columns"],
    columns: Sequence[str] = ("all", *POPULATIONS),
) -> dict[str, tuple[float, float]]:
    """95% interval of modulated − original by column, where every replicate is finite.

    Args:
        original: replicates of one cloud, as `bootstrap_pearson` returns them.
        modulated: of another, from the same call.
        columns: `bootstrap_columns`.
    """
    lifts = (modulated - original).numpy()
    found = {name: percentile_interval(lifts[:, p]) for p, name in enumerate(columns)}
    return {name: ends for name, ends in found.items() if ends is not None}


def interval_figures(intervals: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """`lift_intervals` by the names of logged figures.

    >>> interval_figures({"all": (0.1, 0.2), "train": (0.3, 0.4)})
    {'pearson_lift_low': 0.1, 'pearson_lift_high': 0.2, 'train/pearson_lift_low': 0.3, 'train/pearson_lift_high': 0.4}
    """
    return {
        f"{prefix_of(name)}pearson_lift_{end}": value
        for name, ends in intervals.items()
        for end, value in zip(("low", "high"), ends, strict=True)
    }


def _units(points: Tensor, layout: Layout) -> Tensor:
    """Unit vectors in fp32; in fp64 where cosines crowd."""
    unit = unit_vectors(points)
    if not bool(unit.isfinite().all()):
        return unit
    by_part = torch.from_numpy(layout.by_part).to(unit.device)
    fine = crowded(unit, layout, place_bins(unit[by_part], number_of_bins(len(unit))))
    return unit_vectors(points, fine=True) if fine else unit


def _kept_sums(
    units: list[Tensor],
    sums_of: Callable[[list[Tensor], bool], Tensor],
    keep: Callable[[Callable[[], Arrays]], Arrays] | None,
) -> Tensor:
    """All sums in one pass; where the shared ones and the first cloud's are kept, those of the other clouds alone."""
    if keep is None:
        return sums_of(units, True)
    together: list[Tensor] = []

    def first() -> Arrays:
        together.append(sums_of(units, True))
        return {"sums": together[0][:, : _SHARED + 3].numpy()}

    head = torch.from_numpy(keep(first)["sums"])
    if together:
        return together[0]
    return torch.cat([head, sums_of(units[1:], False)], dim=1) if len(units) > 1 else head


def _weighted_sums(
    units: list[Tensor],
    d: Tensor,
    layout: Layout,
    weights: Tensor,
    advance: Callable[[], None] | None,
    shared: bool,
) -> Tensor:
    """Σ w_i w_j M_ij by cell, term and replicate, in fp64: `shared` 1, s, s², then c, c², s·c of each cloud."""
    similarity = _centred_similarity(d)
    centres = [_centres(unit, layout) for unit in units]  # each: by cell
    n_terms = _SHARED * shared + 3 * len(units)
    sums = weights.new_zeros(layout.n_cells, n_terms, len(weights), dtype=torch.float64)
    for first, last in layout.blocks():
        segments = [
            (slice(a - first, b - first), weights[:, a:b].contiguous(), cell) for a, b, cell in layout.segments(first)
        ]
        classes = d[first:last, first:]
        pair = (classes != UNREACHABLE).float().triu_(1)
        s = similarity[classes.int()].mul_(pair)
        terms = [pair, s, s.square()] if shared else []
        for unit, centre in zip(units, centres, strict=True):
            c = products(unit[first:last], unit[first:])
            for columns, _, cell in segments:
                c[:, columns].sub_(centre[cell])
            c = c.float().mul_(pair)
            terms += [c, c.square(), s * c]
        own = weights[:, first:last].mT.double()
        for columns, others, cell in segments:
            for t, term in enumerate(terms):
                sums[cell, t] += products(term[:, columns], others).double().mul_(own).sum(0)
        if advance is not None:
            advance()
    return sums


def _together(sums: Tensor, cells: list[int], centres: list[list[float]], pairs: list[int]) -> Tensor:
    """The sums of several cells as one: c about the mean of their centres."""
    found = sums[cells]
    for t, centre in zip(range(_SHARED, sums.shape[1], 3), centres, strict=True):
        of_cells = [centre[cell] for cell in cells]
        if len(set(of_cells)) == 1:
            continue
        middle = sum(pairs[cell] * centre[cell] for cell in cells) / max(sum(pairs[cell] for cell in cells), 1)
        for p, own in enumerate(of_cells):
            shift = own - middle  # c about the middle is c about the cell's own centre, plus this
            found[p, t + 2] += shift * found[p, 1]
            found[p, t + 1] += 2 * shift * found[p, t] + shift**2 * found[p, 0]
            found[p, t] += shift * found[p, 0]
    return found.sum(0)


def _centred_similarity(d: Tensor) -> Tensor:
    """Path similarity of each class minus its approximate mean, which keeps fp32 sums small; any constant would do."""
    similarity = 1.0 / torch.arange(1, 257, dtype=torch.float64, device=d.device)
    some = d[:: max(1, len(d) // 64)]
    counts = torch.bincount(some.flatten().int(), minlength=256).double()
    counts[[0, UNREACHABLE]] = 0
    return (similarity - (counts @ similarity) / counts.sum().clamp_min(1)).float()


def _pairs(layout: Layout) -> list[int]:
    """Number of pairs of each cell, those without a path included."""
    pairs = [0] * layout.n_cells
    sizes = np.diff(layout.ends, prepend=0).tolist()
    for g, h in combinations_with_replacement(range(len(sizes)), 2):
        pairs[layout.cells[g, h]] += sizes[g] * (sizes[g] - 1) // 2 if g == h else sizes[g] * sizes[h]
    return pairs


def _centres(unit: Tensor, layout: Layout) -> list[float]:
    """For each cell the mean cosine of all pairs, from |Σ u|²; of vectors in fp64, the mean of its own pairs."""
    if unit.dtype != torch.float64:
        return [_mean_pair_cosine(unit)] * layout.n_cells
    groups = unit.tensor_split(layout.ends[:-1])
    totals = torch.stack([group.sum(0) for group in groups])
    sums = totals @ totals.mT
    sums.diagonal().sub_(torch.stack([group.square().sum() for group in groups])).div_(2)
    found = [0.0] * layout.n_cells
    for g, h in combinations_with_replacement(range(len(groups)), 2):
        found[layout.cells[g, h]] += float(sums[g, h])
    return [total / max(pairs, 1) for total, pairs in zip(found, _pairs(layout), strict=True)]


def _mean_pair_cosine(unit: Tensor) -> float:
    """Mean cosine of distinct rows."""
    n = len(unit)
    total = unit.double().sum(0).square().sum() - unit.double().square().sum()
    return float(total / max(n * (n - 1), 1))


def _pearson(n: Tensor, s: Tensor, ss: Tensor, c: Tensor, cc: Tensor, sc: Tensor, flat: Tensor) -> Tensor:
    n, s, c, ss, cc, sc = torch.broadcast_tensors(n, s, c, ss, cc, sc)
    r = pearson_from_sums(n, s, c, ss, cc, sc, flat=_FLAT)
    return torch.where(cc / n - (c / n).square() <= flat, torch.nan, r)
