"""One cloud fitted to the other on anchors, read on rows that were held out: rotations and linear maps."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modulant.geometry import (
    Ridge,
    cosines,
    covariance,
    eigenvalues_of,
    explained,
    mean_cosine,
    nearest_orthogonal,
    pair_correlation,
    participation_ratio,
    principal_axes,
)
from probes.options import with_bar
from probes.scales.matching import Matched
from probes.scales.record import PERMUTED_ANCHORS, Record

_NOTHING = 1e-20  # share of the variance: a residual of rounding errors has no shape
_BINS = 40
_SHOWN = 10  # tokens at either end
_PUBLISHED = 1_000  # rows whose pairs are formed


@dataclass(frozen=True, eq=False)
class Centred:
    """Rows of both models minus the mean of their anchors.

    Attributes:
        small: (n, d).
        large: (n, D).
        anchors: number of rows, from the first, that are fitted.
    """

    small: Tensor
    large: Tensor
    anchors: int

    @classmethod
    def of(cls, matched: Matched) -> "Centred":
        n = matched.anchors
        return cls(matched.small - matched.small[:n].mean(0), matched.large - matched.large[:n].mean(0), n)

    @property
    def held_out(self) -> tuple[Tensor, Tensor]:
        return self.small[self.anchors :], self.large[self.anchors :]


@dataclass(frozen=True, eq=False)
class Maps:
    """What was fitted: maps (D, d) from the larger cloud to the smaller, factors, and the map back (d, D)."""

    rotation: Tensor
    scale: float
    thin: Tensor
    thin_scale: float
    ridge: Tensor
    ridge_penalty: float
    back: Tensor
    back_penalty: float
    inner: float


class Fitter:
    """Fits on the anchors, again and again with the rows of the smaller cloud in another order.

    A permutation moves no row between those that fit a map and those that choose its penalty. So the products of the
    two clouds, which are all that depends on the order, serve the rotations and the maps in both directions.
    """

    def __init__(self, clouds: Centred) -> None:
        self._small, self._large = clouds.small[: clouds.anchors], clouds.large[: clouds.anchors]
        self._axes = principal_axes(self._large, self._small.shape[1])
        self._spread = float((self._large @ self._axes.mT).square().sum())
        self._forward, self._back = Ridge(self._large), Ridge(self._small)

    def orders(self, record: Record) -> list[Tensor]:
        """Permutations of the anchors, one for each draw of a null."""
        first, n = self._forward.first, len(self._small)
        parts = zip(record.orders(first), record.orders(n - first), strict=True)
        return [torch.cat([one, first + other]) for one, other in parts]

    def fit(self, order: Tensor | None = None) -> Maps:
        first, small = self._forward.first, self._small
        if order is not None:
            small = small[order.to(small.device)]
        products = self._large[:first].mT @ small[:first], self._large[first:].mT @ small[first:]
        forward = self._forward.fit_products(*products)
        back = self._back.fit_products(*(product.mT for product in products))
        cross = products[0] + products[1]
        rotation, inner = nearest_orthogonal(self._axes @ cross)
        thin, thin_inner = nearest_orthogonal(cross)
        return Maps(
            self._axes.mT @ rotation,
            float(inner) / self._spread,
            thin,
            float(thin_inner / (self._large @ thin).square().sum()),
            *forward,
            *back,
            float(inner),
        )


@dataclass(frozen=True, eq=False)
class Held:
    """What maps say of held-out rows.

    Attributes:
        small: (m, d), centred.
        large: (m, D), centred.
        maps: fitted on the anchors.
    """

    small: Tensor
    large: Tensor
    maps: Maps

    @cached_property
    def aligned(self) -> Tensor:
        """(m, d)."""
        return self.large @ self.maps.rotation

    @cached_property
    def residual(self) -> Tensor:
        """(m, d): what the rotation with its factor leaves."""
        return self.small - self.maps.scale * self.aligned

    def figures(self, weights: Tensor | None = None) -> dict[str, Tensor]:
        """By name, a value for each resample; one without weights."""
        maps, small = self.maps, self.small
        thin, ridge = self.large @ maps.thin, self.large @ maps.ridge
        return {
            "rotation/cosine": _mean_of(_cosines(self.aligned, small), weights),
            "rotation/r2": explained(small, self.aligned, weights),
            "rotation_scaled/r2": explained(small, maps.scale * self.aligned, weights),
            "rotation_thin/cosine": _mean_of(_cosines(thin, small), weights),
            "rotation_thin/r2": explained(small, thin, weights),
            "rotation_thin_scaled/r2": explained(small, maps.thin_scale * thin, weights),
            "ridge/cosine": _mean_of(_cosines(ridge, small), weights),
            "ridge/r2": explained(small, ridge, weights),
            "ridge_back/r2": explained(self.large, small @ maps.back, weights),
        }

    def residual_figures(self) -> dict[str, float]:
        share = float(self.residual.square().sum() / self.small.square().sum())
        values = eigenvalues_of(covariance(self.residual))
        solid = share > _NOTHING
        return {
            "residual/share": share,
            "residual/participation_ratio": float(participation_ratio(values)) if solid else torch.nan,
            "residual/top_share": float(values[0] / values.sum()) if solid else torch.nan,
        }


def measure_fits(matched: Matched, record: Record) -> dict[str, Any]:
    """Store ``rotation/…``, ``ridge/…``, ``residual/…`` and the published figures. Returns curves and tokens."""
    clouds = Centred.of(matched)
    fitter = Fitter(clouds)
    held = Held(*clouds.held_out, fitter.fit())
    weights = record.weights(matched.held_out).double().to(held.small.device)
    figures, replicates, left = held.figures(), held.figures(weights), held.residual_figures()
    nulls: dict[str, list[float]] = {}
    first = None  # of the draws, which are not kept: each has maps as large as the model's
    for order in with_bar(fitter.orders(record), "fitting permuted anchors", record.nulls):
        drawn = Held(*clouds.held_out, fitter.fit(order))
        first = first or drawn
        numbers = drawn.residual_figures() | {"rotation_scaled/scale": drawn.maps.scale}
        numbers |= {name: float(value) for name, value in drawn.figures().items()}
        for name, number in numbers.items():
            nulls.setdefault(name, []).append(number)
    assert first is not None
    population, anchors, maps = matched.population, f"{matched.anchors:,} anchors", held.maps
    for name, value in figures.items():
        record.add(name, float(value), population, PERMUTED_ANCHORS, nulls[name], replicates[name])
    for name, number in left.items():
        record.add(name, number, population, PERMUTED_ANCHORS, nulls[name])
    if left["residual/share"] <= _NOTHING:
        for name in ("residual/participation_ratio", "residual/top_share"):
            record.found.reasons[name] = "the rotation leaves nothing but rounding errors"
    record.add("rotation_scaled/scale", maps.scale, anchors, PERMUTED_ANCHORS, nulls["rotation_scaled/scale"])
    record.add("ridge/penalty", maps.ridge_penalty, anchors)
    record.add("ridge_back/penalty", maps.back_penalty, anchors)
    _published(matched, held, first, record)
    of_tokens, of_null = (_cosines(one.aligned, one.small) for one in (held, first))
    return {
        "curves": {"cosines": _histogram(of_tokens), "null_cosines": _histogram(of_null)},
        "tokens": _ends(matched, of_tokens),
    }


def _published(matched: Matched, held: Held, null: Held, record: Record) -> None:
    """Figures as published elsewhere: the mean added back, anchors among the rows, and Σ S called a scale."""
    n = matched.anchors
    mean, mean_large = matched.small[:n].mean(0), matched.large[:n].mean(0)
    moved, moved_null = ((matched.large - mean_large) @ one.maps.rotation + mean for one in (held, null))
    everything = f"{len(matched.tokens):,} rows, anchors among them"
    values = [float(mean_cosine(one, matched.small)) for one in (moved, moved_null)]
    record.add("source/rotation/cosine", values[0], everything, "anchors' rows permuted, one fit", values[1:])
    record.add("source/rotation/scale", held.maps.inner, f"{n:,} anchors")
    share = float((matched.small - moved)[n:].square().sum() / matched.small[n:].square().sum())
    record.add("source/residual/share", share, matched.population)
    chosen = torch.randperm(len(moved), generator=torch.Generator().manual_seed(record.seed))[:_PUBLISHED]
    x, y, y_null = (cosines(rows[chosen.to(rows.device)]) for rows in (matched.small, moved, moved_null))
    values = [float(pair_correlation(x, other)) for other in (y, y_null)]
    some = f"{len(chosen):,} rows, anchors among them"
    record.add("source/relational/r", values[0], some, "anchors' rows permuted, one fit", values[1:])


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=1)


def _mean_of(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.mean().reshape(1) if weights is None else weights @ values / weights.sum(1)


def _histogram(cosines: Tensor) -> list[float]:
    """Density in equal bins over −1 … 1."""
    counts = torch.histc(cosines.float().cpu(), _BINS, -1, 1)
    density: list[float] = (counts / len(cosines) * _BINS / 2).tolist()
    return density


def _ends(matched: Matched, cosines: Tensor) -> dict[str, list[dict[str, Any]]]:
    """The held-out tokens that are aligned best and worst, with what may explain it."""
    norms = matched.small[matched.anchors :].norm(dim=1), matched.large[matched.anchors :].norm(dim=1)
    order = cosines.argsort(descending=True).tolist()
    return {
        end: [
            {
                "token": matched.tokens[matched.anchors + i],
                "cosine": float(cosines[i]),
                "norm_small": float(norms[0][i]),
                "norm_large": float(norms[1][i]),
                "id_small": matched.ids[matched.anchors + i][0],
                "id_large": matched.ids[matched.anchors + i][1],
            }
            for i in chosen
        ]
        for end, chosen in (("best", order[:_SHOWN]), ("worst", order[: -_SHOWN - 1 : -1]))
    }
