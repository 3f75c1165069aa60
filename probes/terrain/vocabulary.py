"""Figures of an embedding matrix that no tokenizer is needed for: lengths, angles, spectrum, pentachora."""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modulant.geometry import (
    coefficient_of_variation,
    cosine_moments,
    covariance,
    density_ratios,
    dimensions_for,
    eigenvalues_of,
    entropy_rank,
    gaussian_like,
    gaussian_spectrum,
    isotropic_volumes,
    participation_ratio,
    pentachoron_volumes,
    squared_distance_moments,
    unbiased_participation_ratio,
)
from probes.findings import Findings, Null
from probes.opening import Rows

PENTACHORA = 20_000
CLOUDS = 5  # of each Gaussian null
SAMPLE = 8192  # rows whose pairs are looked at one by one, and of a Gaussian cloud
CONSTANTS = (0.29154, 0.29514, 0.19471, 0.5)
BESIDE = (0.2315, 0.2415, 0.2515, 0.3315, 0.3415, 0.3515)  # places near the first, where nothing has been claimed
SHARES = (80, 90, 95, 99)
ISOTROPIC = "isotropic Gaussian rows, as many"
SAME_COVARIANCE = "Gaussian rows of the same covariance"
_BINS, _DRAWN = 80, 2048  # bins and rows of the histogram of cosines
_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def measure_norms(rows: Rows, found: Findings) -> None:
    """Lengths of the rows: ``norm/…``."""
    n, norms = rows.population, rows.points.double().norm(dim=1)
    mean, sd = float(norms.mean()), float(norms.std(correction=0))
    matrix, centre = rows.covariance, rows.mean
    # Of a Gaussian with this covariance and mean: var ‖e‖² = 2 tr Σ² + 4 μᵀ Σ μ, and sd ‖e‖ ≈ sd ‖e‖² / (2 ‖e‖).
    square = matrix.trace() + centre.square().sum()
    null = float((2 * matrix.square().sum() + 4 * centre @ matrix @ centre).sqrt() / (2 * square.sqrt()))
    found.add("norm/mean", mean, n, "length")
    found.add("norm/sd", sd, n, "length", Null(SAME_COVARIANCE + " and mean (approximate)", [null]))
    found.add("norm/cv", sd / mean, n, null=Null(SAME_COVARIANCE + " and mean (approximate)", [null / mean]))
    found.add("norm/min", float(norms.min()), n, "length")
    found.add("norm/max", float(norms.max()), n, "length")
    ordered = norms.sort().values
    for percent in _PERCENTILES:
        found.add(f"norm/p{percent:02d}", float(ordered[round(percent / 100 * (len(norms) - 1))]), n, "length")
    # ids ascend, so Spearman's ρ with them is Pearson's of ranks; ties of fp64 norms do not matter.
    ranks = norms.argsort().argsort().double()
    places = torch.arange(len(norms), dtype=torch.float64, device=norms.device)
    rho = torch.corrcoef(torch.stack([ranks, places]))[0, 1] if sd > 0 else torch.tensor(torch.nan)
    found.add("norm/spearman_token_id", float(rho), n, null=Null("no order (mean over permutations)", [0.0]))


def measure_angles(rows: Rows, found: Findings) -> None:
    """Cosines and squared distances of all pairs: ``cosine/…``, ``cosine_centred/…``, ``squared_distance/…``."""
    n, dim = rows.points.shape
    pairs = f"{n * (n - 1) // 2:,} pairs"
    centred = rows.points.double() - rows.mean
    for name, points in (("cosine", rows.points), ("cosine_centred", centred)):
        moments = cosine_moments(points)
        found.add(f"{name}/mean", moments.mean, pairs, null=Null("isotropic directions", [0.0]))
        found.add(f"{name}/sd", moments.sd, pairs, null=Null("isotropic directions", [1 / math.sqrt(dim)]))
    moments = squared_distance_moments(rows.points, rows.covariance)
    ratio = float(participation_ratio(eigenvalues_of(rows.covariance)))
    found.add("squared_distance/mean", moments.mean, pairs, "length²")
    null = Null(SAME_COVARIANCE, [math.sqrt(2 / ratio) if ratio > 0 else math.nan])
    found.add("squared_distance/cv", moments.sd / moments.mean if moments.mean else math.nan, pairs, null=null)


def measure_spectrum(rows: Rows, found: Findings, seed: int) -> dict[str, Any]:
    """Eigenvalues of the covariance: ``spectrum/…``. Returns the curves of the model and of its null."""
    (n, dim), population = rows.points.shape, rows.population
    values = eigenvalues_of(rows.covariance)
    nulls = gaussian_spectrum(n, dim, CLOUDS, seed)

    def add(name: str, of: Any) -> None:
        found.add(
            f"spectrum/{name}", float(of(values)), population, null=Null(ISOTROPIC, [float(of(v)) for v in nulls])
        )

    add("participation_ratio", participation_ratio)
    uncentred = participation_ratio(eigenvalues_of(rows.covariance + rows.mean.outer(rows.mean)))
    plain = found.nulls["spectrum/participation_ratio"]["mean"]
    found.add("spectrum/participation_ratio_uncentred", float(uncentred), population, null=Null(ISOTROPIC, [plain]))
    unbiased = unbiased_participation_ratio(rows.points, seed=seed)
    found.add("spectrum/participation_ratio_unbiased", float(unbiased), population, null=Null(ISOTROPIC, [float(dim)]))
    found.add("spectrum/participation_share", float(participation_ratio(values)) / dim, population, "of dimensions")
    add("top_share", lambda v: v[0] / v.sum())
    add("entropy_rank", entropy_rank)
    for share in SHARES:
        add(f"dims_{share}", lambda v, share=share: dimensions_for(v, share / 100))
    return {
        "eigenvalues": values.tolist(),
        "cumulative": (values.cumsum(0) / values.sum()).tolist(),
        "null_cumulative": (nulls[0].cumsum(0) / nulls[0].sum()).tolist(),
    }


def measure_pentachora(rows: Rows, found: Findings, seed: int) -> None:
    """CVs of pentachora beside their nulls, and ratios of the mean volume to those of three: ``pentachoron/…``.

    Null clouds have no mean, which a volume does not see, and at most `SAMPLE` rows, on which its distribution does not
    depend.
    """
    points, population = rows.points, f"{PENTACHORA:,} pentachora of {rows.population}"
    (n, dim), matrix = points.shape, rows.covariance
    n = min(n, SAMPLE)

    def drawn(of: Tensor, unit: bool = False) -> list[Tensor]:
        clouds = gaussian_like(of, n, CLOUDS, seed + 1)
        shown = (F.normalize(cloud + rows.mean.float(), dim=-1) if unit else cloud for cloud in clouds)
        return [_volumes(cloud, seed) for cloud in shown]

    volumes, unit = _volumes(points, seed), _volumes(F.normalize(points, dim=-1), seed)
    diagonal, full = drawn(matrix.diagonal().diag()), drawn(matrix)
    null = Null(SAME_COVARIANCE, [_cv(some) for some in full])
    found.add("pentachoron/cv", _cv(volumes), population, null=null)
    null = Null(f"{SAME_COVARIANCE} and mean, of length 1", [_cv(some) for some in drawn(matrix, unit=True)])
    found.add("pentachoron/cv_unit", _cv(unit), f"{population}, of length 1", null=null)
    mean, cv = isotropic_volumes(dim)
    found.add("pentachoron/cv_null_isotropic", cv, "closed form")
    for kind, clouds in (("diagonal", diagonal), ("covariance", full)):
        value = sum(_cv(some) for some in clouds) / CLOUDS
        found.add(f"pentachoron/cv_null_{kind}", value, f"{CLOUDS} clouds, as many pentachora each")
    found.add("pentachoron/mean_volume", float(volumes.mean()), population, "length⁴")
    # The published ratio takes the sd of all entries, to which a common offset of the rows adds.
    spread = float(points.double().var(correction=0)) ** 2
    nulls = {
        "isotropic": ("N(0, s²), s the sd of all entries", mean * spread),
        "isotropic_centred": (
            "isotropic Gaussian rows, same total variance",
            mean * float(matrix.trace() / dim) ** 2,
        ),
        "diagonal": ("Gaussian rows of the same sd in each dimension", float(torch.stack(diagonal).mean())),
        "covariance": (SAME_COVARIANCE, float(torch.stack(full).mean())),
    }
    for kind, (what, other) in nulls.items():
        ratio = float(volumes.mean()) / other if other else math.nan
        found.add(f"pentachoron/ratio_{kind}", ratio, population, null=Null(what, [1.0]))


def measure_constants(rows: Rows, found: Findings, seed: int) -> dict[str, Any]:
    """Density of cosines at constants that have been called special: ``constant/…``. Returns histograms of cosines."""
    points = _sampled(rows.points, SAMPLE, seed)
    mean, n = points.double().mean(0).float(), len(points)
    like = next(gaussian_like(covariance(points), n, 1, seed + 1)) + mean
    ratios, nulls = density_ratios(points, CONSTANTS + BESIDE), density_ratios(like, CONSTANTS)
    for constant, ratio, null in zip(CONSTANTS, ratios, nulls, strict=False):
        found.add(
            f"constant/{constant:g}",
            ratio,
            f"{n * (n - 1) // 2:,} pairs of {n:,} rows",
            null=Null(SAME_COVARIANCE + " and mean, one cloud", [null]),
        )
    near = torch.tensor(ratios[len(CONSTANTS) :], dtype=torch.float64)
    places = f"{len(BESIDE)} places within 0.06 of {CONSTANTS[0]:g}"
    found.add("constant/beside/mean", float(near.mean()), places)
    found.add("constant/beside/sd", float(near.std()), places)
    found.add("constant/beside/places", len(near), "places")
    clouds: Mapping[str, Tensor] = {"rows": points, "centred": points - mean, "gaussian": like}
    return {name: _histogram(_sampled(some, _DRAWN, seed)) for name, some in clouds.items()}


def special_tokens(tokenizer: Any, ids: list[int], embedding: Tensor, rows: Rows) -> list[dict[str, Any]]:
    """Of each special token: norm, share of measured rows that are shorter, distance to their mean, mean cosine.

    That is with the other special ones, all without the mean of the measured rows.
    """
    norms = rows.points.double().norm(dim=1)
    centre, spread = rows.mean, float(rows.covariance.trace().sqrt())
    found, ids = [], [i for i in ids if i < len(embedding)]
    unit = F.normalize(embedding[ids].double() - centre, dim=-1)
    cosines = (unit @ unit.sum(0) - unit.square().sum(1)).tolist()
    for i, cosine in zip(ids, cosines, strict=True):
        row = embedding[i].double()
        found.append(
            {
                "token": tokenizer.convert_ids_to_tokens(i),
                "id": i,
                "norm": float(row.norm()),
                "percentile": 100 * float((norms < row.norm()).double().mean()),
                "distance_to_mean": float((row - centre).norm()) / spread if spread else None,
                "cosine_with_others": cosine / (len(ids) - 1) if len(ids) > 1 else None,
            }
        )
    return found


def _volumes(points: Tensor, seed: int) -> Tensor:
    return pentachoron_volumes(points, PENTACHORA, seed, torch.float64)


def _cv(volumes: Tensor) -> float:
    return float(coefficient_of_variation(volumes))


def _sampled(points: Tensor, n: int, seed: int) -> Tensor:
    """At most `n` rows, without replacement."""
    if len(points) <= n:
        return points
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:n]
    return points[chosen.sort().values.to(points.device)]


def _histogram(points: Tensor) -> list[float]:
    """Density of the cosines of all pairs in equal bins over −1 … 1."""
    unit = F.normalize(points, dim=-1)
    i, j = torch.triu_indices(len(unit), len(unit), 1, device=unit.device)
    cosines = (unit @ unit.mT)[i, j].float().cpu()
    density: list[float] = (torch.histc(cosines, _BINS, -1, 1) / max(1, len(cosines)) * _BINS / 2).tolist()
    return density
