"""How certain is a correlation over pairs? A bootstrap over synsets: pairs share them, so pairs cannot be resampled.

A replicate draws as many synsets as there are, with replacement, and w_i is how often synset i came; a pair of distinct
synsets i < j then counts w_i w_j times. (A synset beside its own copy is no pair: its similarity of 1 would be an
artefact of the resampling.) Training and held-out synsets are resampled separately: the split is fixed by design and
not part of what is sampled, so every replicate has its sizes.

Every cloud gets the same weights, which depend only on seed, number of synsets and split. So the difference of two
clouds within a replicate is a replicate of the lift, free of the noise that both share.

All replicates are computed at once. With M the pairs' matrix of a term (1, s, s², c, c², s·c of path similarity s and
cosine c, zero at and below the diagonal), Σ w_i w_j M_ij is the dot product of a column of W with that of M W: one
matrix product for a block of rows and all replicates. The products are in fp32, of values that are centred first and
weights that are small integers; sums over blocks are in fp64. Cosines that crowd come from fp64, as in `fine_counts`,
whose thresholds hold here too.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from modulant.geometry import pearson_from_sums
from modulant.lexicon.taxonomy import UNREACHABLE
from modulant.metrics.functional.counts import number_of_bins, place_bins
from modulant.metrics.functional.fine_counts import FLAT, FLAT_FINE, crowded, unit_vectors
from modulant.metrics.functional.intervals import percentile_interval
from modulant.metrics.functional.pairs import POPULATIONS, full_precision, row_blocks

_FLAT = 1e-6  # a variance up to this share of the centred mean square is a rounding error of fp32


@torch.no_grad()
def bootstrap_pearson(
    clouds: Sequence[Float[Tensor, "_ _"]],
    distances: UInt8[np.ndarray, "_ _"] | UInt8[Tensor, "_ _"],
    held_out: Bool[np.ndarray, "points"] | Bool[Tensor, "points"],
    replicates: int = 1000,
    seed: int = 42,
    advance: Callable[[], None] | None = None,
) -> Float[Tensor, "clouds replicates 4"]:
    """Replicates of Pearson's r between cosine and path similarity 1 / (1 + d), in fp64, on the CPU.

    Args:
        clouds: representations of the same synsets, one row each; a row of zeros has cosine 0 with all.
        distances: path lengths d of all pairs, 255 where there is no path (such pairs are left out).
        held_out: which synsets a training never saw.
        replicates: number of resamplings, the same for every cloud.
        seed: seed of the resampling.
        advance: called after each of `bootstrap_steps(held_out)` blocks.

    Returns:
        r by cloud, replicate and population: all pairs, train × train, train × held-out, held-out × held-out. NaN where
        nothing varies, as among fewer than three synsets.

    Raises:
        ValueError: no cloud, clouds of another length than `held_out`, or fewer than 2 replicates.
    """
    d, out = torch.as_tensor(distances).cpu(), torch.as_tensor(held_out).cpu()
    lengths = [len(cloud) for cloud in clouds]
    if not clouds or set(lengths) != {len(out)}:
        raise ValueError(f"bootstrap_pearson: clouds of {lengths} points; one or more clouds of {len(out)} are needed")
    if d.shape != (len(out), len(out)):
        raise ValueError(f"bootstrap_pearson: distances of shape {tuple(d.shape)} for {len(out)} synsets")
    device = clouds[0].device if clouds[0].device.type != "mps" else torch.device("cpu")  # Apple's GPU has no fp64
    order = out.int().argsort(stable=True)  # training rows first
    weights = synset_weights(out, replicates, seed)[:, order].float().mT.contiguous().to(device)  # (P, R)
    d = d[order][:, order].to(device)
    order = order.to(device)
    with full_precision(device):
        n_train = int((~out).sum())
        units = [_units(cloud.to(device)[order], n_train) for cloud in clouds]
        sums = _weighted_sums(units, d, n_train, weights, advance).cpu()  # (4, 3 + 3 C, R), all pairs first
    shared, own = sums[:, :3].unbind(1), sums[:, 3:].unflatten(1, (-1, 3)).unbind(2)
    flat = sums.new_tensor([FLAT_FINE if unit.dtype == torch.float64 else FLAT for unit in units]).unsqueeze(1)
    n, s, ss = (term.unsqueeze(1) for term in shared)
    c, cc, sc = own
    return _pearson(n, s, ss, c, cc, sc, flat).permute(1, 2, 0).contiguous()


def synset_weights(
    held_out: Bool[Tensor, "points"] | Bool[np.ndarray, "points"], replicates: int, seed: int
) -> Int[Tensor, "replicates points"]:
    """Number of times that each synset is drawn in each replicate, with replacement from its own kind.

    Each kind, training and held out, keeps its size.

    Raises:
        ValueError: fewer than 2 replicates.
    """
    if replicates < 2:
        raise ValueError(f"bootstrap_pearson: replicates is {replicates}; an interval needs at least 2")
    out = torch.as_tensor(held_out).cpu()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.zeros(replicates, len(out), dtype=torch.int32)
    for kind in ((~out).nonzero().squeeze(1), out.nonzero().squeeze(1)):
        for row in weights if len(kind) > 0 else ():
            drawn = torch.randint(len(kind), (len(kind),), generator=generator)
            row[kind] = torch.bincount(drawn, minlength=len(kind)).int()
    return weights


def bootstrap_steps(held_out: Bool[np.ndarray, "points"] | Bool[Tensor, "points"]) -> int:
    """Number of blocks that `bootstrap_pearson` reports to `advance`."""
    out = torch.as_tensor(held_out)
    return sum(1 for _ in row_blocks(len(out), int((~out).sum())))


def lift_intervals(
    original: Float[Tensor, "replicates 4"], modulated: Float[Tensor, "replicates 4"]
) -> dict[str, tuple[float, float]]:
    """95% interval of modulated − original by population ("all" and `POPULATIONS`), where every replicate is finite.

    Args:
        original: replicates of one cloud, as `bootstrap_pearson` returns them.
        modulated: of another, from the same call.
    """
    lifts = (modulated - original).numpy()
    found = {name: percentile_interval(lifts[:, p]) for p, name in enumerate(("all", *POPULATIONS))}
    return {name: ends for name, ends in found.items() if ends is not None}


def interval_figures(intervals: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """`lift_intervals` by the names of logged figures.

    >>> interval_figures({"all": (0.1, 0.2), "train": (0.3, 0.4)})
    {'pearson_lift_low': 0.1, 'pearson_lift_high': 0.2, 'train/pearson_lift_low': 0.3, 'train/pearson_lift_high': 0.4}
    """
    return {
        f"{'' if name == 'all' else f'{name}/'}pearson_lift_{end}": value
        for name, ends in intervals.items()
        for end, value in zip(("low", "high"), ends, strict=True)
    }


def _units(points: Tensor, n_train: int) -> Tensor:
    """Unit vectors in fp32; in fp64 where cosines crowd."""
    unit = unit_vectors(points)
    if not bool(unit.isfinite().all()):
        return unit
    fine = crowded(unit, n_train, place_bins(unit, number_of_bins(len(unit))))
    return unit_vectors(points, fine=True) if fine else unit


def _weighted_sums(
    units: list[Tensor], d: Tensor, n_train: int, weights: Tensor, advance: Callable[[], None] | None
) -> Tensor:
    """Σ w_i w_j M_ij by population, term and replicate; terms 1, s, s², then c, c², s·c of each cloud, all centred.

    Of all pairs first, then of each of `POPULATIONS`.
    """
    n, replicates = weights.shape
    similarity = _centred_similarity(d)
    centres = [_centres(unit, n_train) for unit in units]  # each: all pairs, then by population
    sums = weights.new_zeros(3, 3 + 3 * len(units), replicates, dtype=torch.float64)
    for first, last in row_blocks(n, n_train):
        classes = d[first:last, first:]
        pair = (classes != UNREACHABLE).float().triu_(1)
        s = similarity[classes.int()].mul_(pair)
        terms = [pair, s, s.square()]
        split = max(n_train, first) - first
        for unit, centre in zip(units, centres, strict=True):
            c = unit[first:last] @ unit[first:].mT
            if first >= n_train:
                c.sub_(centre[3])
            else:
                c[:, :split].sub_(centre[1])
                c[:, split:].sub_(centre[2])
            c = c.float().mul_(pair)
            terms += [c, c.square(), s * c]
        own = weights[first:last].double()
        # Training rows meet training columns, then held-out ones; held-out rows only their own kind.
        held = max(n_train, first)
        parts = [(2, first, n)] if first >= n_train else [(0, first, n_train), (1, held, n)]
        for population, start, stop in parts:
            for t, term in enumerate(terms):
                product = term[:, start - first : stop - first] @ weights[start:stop]
                sums[population, t] += product.double().mul_(own).sum(0)
        if advance is not None:
            advance()
    together = sums.clone()
    for t, centre in zip(range(3, sums.shape[1], 3), centres, strict=True):
        for p, own_centre in enumerate(centre[1:]):
            shift = own_centre - centre[0]  # c about the centre of all pairs is c about its own, plus this
            together[p, t] += shift * sums[p, 0]
            together[p, t + 1] += 2 * shift * sums[p, t] + shift**2 * sums[p, 0]
            together[p, t + 2] += shift * sums[p, 1]
    return torch.cat([together.sum(0, keepdim=True), sums])


def _centred_similarity(d: Tensor) -> Tensor:
    """Path similarity of each class minus its approximate mean, which keeps fp32 sums small; any constant would do."""
    similarity = 1.0 / torch.arange(1, 257, dtype=torch.float64, device=d.device)
    some = d[:: max(1, len(d) // 64)]
    counts = torch.bincount(some.flatten().int(), minlength=256).double()
    counts[[0, UNREACHABLE]] = 0
    return (similarity - (counts @ similarity) / counts.sum().clamp_min(1)).float()


def _centres(unit: Tensor, n_train: int) -> tuple[float, float, float, float]:
    """Mean cosine of all pairs, from |Σ u|²; and the same for each population, of vectors in fp64 its own."""
    centre = _mean_pair_cosine(unit)
    if unit.dtype != torch.float64:
        return centre, centre, centre, centre
    train, held = unit[:n_train], unit[n_train:]
    between = float(train.sum(0) @ held.sum(0)) / max(len(train) * len(held), 1)
    return centre, _mean_pair_cosine(train), between, _mean_pair_cosine(held)


def _mean_pair_cosine(unit: Tensor) -> float:
    """Mean cosine of distinct rows."""
    n = len(unit)
    total = unit.double().sum(0).square().sum() - unit.double().square().sum()
    return float(total / max(n * (n - 1), 1))


def _pearson(n: Tensor, s: Tensor, ss: Tensor, c: Tensor, cc: Tensor, sc: Tensor, flat: Tensor) -> Tensor:
    n, s, c, ss, cc, sc = torch.broadcast_tensors(n, s, c, ss, cc, sc)
    r = pearson_from_sums(n, s, c, ss, cc, sc, flat=_FLAT)
    return torch.where(cc / n - (c / n).square() <= flat, torch.nan, r)
