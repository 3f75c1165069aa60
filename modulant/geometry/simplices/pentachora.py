"""Pentachora of a cloud of points: volumes of seeded draws of five, and how unequal they are.

The coefficient of variation (CV) of the volumes does not change under rotation, shift or scaling. By itself it says
little: a Gaussian cloud's depends mostly on its number of effective dimensions. So it is compared with a null, the CVs
of Gaussian clouds of the same size and per-dimension scale.
"""

import math
from functools import lru_cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

BIN_WIDTH, BINS = 0.05, 61  # of volumes relative to their mean
_CORNERS = 5
# Below this share of the lengths squared, a pivot in fp32 or fp64 has too few digits left: about 1e-6 or 1e-9 is wrong.
_DOUBTFUL = {torch.float32: 0.05, torch.float64: 1e-7}
_FLAT = 8 * torch.finfo(torch.float64).eps  # a height of this share of the edges is rounding error
_CHUNK = 2**16  # draws times dimensions
# A global Gram matrix costs N² dot products, direct edges 10 per draw; the gathers are cheaper than the edges' memory.
_GRAM_ENTRIES_PER_DRAW = 64
_FEW_DIMS = 32  # up to which fp64 costs little, and many a draw would need it
_USUAL = 20  # coordinates between 2^-20 and 2^20 need no scaling: their squares are far from the ends of fp32


def pentachoron_draws(n_points: int, n: int, seed: int) -> Int[Tensor, "draws 5"]:
    """Row numbers of `n` draws, five distinct rows in each; equal seeds give equal draws on every device.

    Each draw is uniform over ordered selections without replacement: the j-th number is drawn among the rows that are
    left and then moved past the ones already taken, in ascending order.

    Raises:
        ValueError: fewer than 5 points, or fewer than 1 draw.
    """
    if n_points < _CORNERS:
        raise ValueError(
            f"pentachoron_draws: got {n_points} point{'s' * (n_points != 1)}; a pentachoron needs at least {_CORNERS}"
        )
    if n < 1:
        raise ValueError(f"pentachoron_draws: n is {n}; at least 1 draw is needed")
    return _draws(n_points, n, seed).clone()


@lru_cache(maxsize=4)  # a measurement draws the same for its cloud and for each of its nulls
def _draws(n_points: int, n: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    taken: list[Tensor] = []  # so far, in ascending order
    columns: list[Tensor] = []
    for j in range(_CORNERS):
        row = torch.randint(n_points - j, (n,), generator=generator, dtype=torch.int32)
        for earlier in taken:
            row += row >= earlier
        columns.append(row)
        for k, earlier in enumerate(taken):
            taken[k], row = torch.minimum(earlier, row), torch.maximum(earlier, row)
        taken.append(row)
    return torch.stack(columns, dim=-1).long()


def pentachoron_volumes(
    points: Float[Tensor, "points dim"], n: int = 1000, seed: int = 42, dtype: torch.dtype | None = None
) -> Float[Tensor, "draws"]:
    """Volumes sqrt(det Gram of 4 edges) / 24 of seeded draws of five distinct points. Unit: length⁴.

    The determinant is the product in fp64 of the pivots of the Gram matrix of the four edges at the first corner. Where
    draws outnumber points by far, its entries are read from one centred Gram matrix of the cloud, else computed from
    each draw's edges; in fp32, or fp64 for few dimensions. A Gram matrix squares the condition number, so a nearly flat
    draw (a tiny pivot) is computed again by orthogonalising its edges in fp64: a relative error of about 1e-15 times
    the condition number of the edges, as by their singular values. Zero where that leaves nothing. On Apple's GPU,
    which has no fp64, this runs on the CPU.

    Args:
        dtype: of the volumes; None: that of the points, at least fp32.

    Raises:
        ValueError: fewer than 5 points, or volumes out of the range of `dtype`.
    """
    volumes, exponent = _scaled_volumes(points, n, seed)
    for _ in range(4):
        volumes = volumes * 2.0**exponent
    dtype = torch.promote_types(points.dtype, torch.float32) if dtype is None else dtype
    found = volumes.to(dtype)
    if exponent and (found.isinf().any() or (volumes.amax() > 0 and not found.any())):
        raise ValueError(
            f"pentachoron_volumes: volumes of lengths around 2^{exponent} (length⁴) are out of {dtype}'s range; scale "
            "the points, or name another dtype"
        )
    return found.to(points.device)


def coefficient_of_variation(volumes: Float[Tensor, "draws"]) -> Float[Tensor, ""]:
    """Standard deviation over mean, both of the population. Unitless; NaN when every volume is zero.

    >>> coefficient_of_variation(torch.tensor([1.0, 3.0]))
    tensor(0.5000)
    """
    return volumes.std(correction=0) / volumes.mean()


def pentachoron_cv(points: Float[Tensor, "points dim"], n: int = 1000, seed: int = 42) -> Float[Tensor, ""]:
    """Standard deviation over mean (both of the population) of `pentachoron_volumes`. Unitless.

    NaN when every drawn pentachoron is flat. Computed in fp64 at any scale of the points.

    Raises:
        ValueError: fewer than 5 points, or an offset so large that rounding has made all points one.
    """
    volumes, _ = _scaled_volumes(points, n, seed)
    if not volumes.any() and points.any():
        step = torch.finfo(points.dtype).eps * float(points.detach().abs().amax())
        if float((points.detach() - points[0].detach()).abs().amax()) <= 16 * step:
            raise ValueError(
                f"pentachoron_cv: the {len(points)} points differ by less than {points.dtype} resolves so far from the "
                f"origin (steps of {step:.1g}); subtract their mean before they are rounded"
            )
    return coefficient_of_variation(volumes).to(points.device, torch.promote_types(points.dtype, torch.float32))


def gaussian_null_volumes(
    points: Float[Tensor, "points dim"], n: int = 1000, seed: int = 42, repeats: int = 20
) -> Float[Tensor, "repeats draws"]:
    """Volumes in `repeats` Gaussian clouds with the number of points and the per-dimension scale of `points`.

    The clouds have no correlation between dimensions, so a CV above theirs indicates fewer effective dimensions or
    heavy tails. z = (cv − mean) / sd of their CVs. Their mean is the origin, as volumes do not depend on it. In fp64;
    for points on Apple's GPU, on the CPU.

    Raises:
        ValueError: fewer than 5 points, or fewer than 2 repeats.
    """
    if repeats < 2:
        raise ValueError(f"gaussian_null_volumes: repeats is {repeats}; a spread needs at least 2")
    cloud = points.detach().cpu() if points.device.type == "mps" else points.detach()
    scale = cloud.double().std(dim=0, correction=0)
    exponent = _exponent(scale, torch.float32)
    scale = (scale * 2.0**-exponent).float()
    # Drawn on the CPU, so the null is the same on every device. The offset keeps it apart from the seed of the draws.
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.empty(cloud.shape)
    clouds = (noise.normal_(generator=generator).to(scale.device) * scale for _ in range(repeats))
    volumes = torch.stack([pentachoron_volumes(cloud, n, seed, torch.float64) for cloud in clouds])
    for _ in range(4):
        volumes = volumes * 2.0**exponent
    return volumes


def isotropic_volumes(dim: int) -> tuple[float, float]:
    """Mean and CV of the volumes in N(0, I) of `dim` dimensions. The mean's unit: length⁴; of no spread, 0 and NaN.

    A volume is √5 / 24 times the product of four independent χ with D, D−1, D−2 and D−3 degrees of freedom. For large D
    the CV is √(2/D).

    >>> isotropic_volumes(128)
    (1479.06..., 0.126...)
    """
    degrees = range(dim, dim - 4, -1)
    if degrees[-1] < 1:
        return 0.0, math.nan
    # E χ_k = √2 Γ((k+1)/2) / Γ(k/2), E χ²_k = k
    mean = math.prod(math.sqrt(2) * math.exp(math.lgamma((k + 1) / 2) - math.lgamma(k / 2)) for k in degrees)
    return math.sqrt(5) / 24 * mean, math.sqrt(math.prod(degrees) / mean**2 - 1)


def relative_volume_histogram(volumes: Float[Tensor, "draws"]) -> Float[Tensor, "bins"]:
    """Counts of volume / mean volume in bins of `BIN_WIDTH` from 0 on; the last bin holds all larger ones.

    The standard deviation of these ratios is the CV, so clouds of any scale can be compared. All zeros where every
    volume is zero.
    """
    relative = volumes.double() / volumes.double().mean()
    bins = (relative[relative.isfinite()] / BIN_WIDTH).long().clamp_max(BINS - 1)
    return torch.bincount(bins, minlength=BINS).double()


def _scaled_volumes(points: Tensor, n: int, seed: int) -> tuple[Tensor, int]:
    """Volumes in fp64 of the points times 2^-k, and k: 0 for points of usual lengths."""
    draws = pentachoron_draws(len(points), n, seed)
    cloud = points.cpu() if points.device.type == "mps" else points
    draws = draws.to(cloud.device)
    if cloud.dtype in (torch.float16, torch.bfloat16):
        cloud = cloud.float()
    # Reading all coordinates costs as much as the draws' products; lengths that need no scaling say so themselves.
    volumes, usual = _volumes(cloud, draws, n)
    if usual or (exponent := _exponent(cloud.detach(), cloud.dtype)) == 0:
        return volumes, 0
    return _volumes(cloud * 2.0**-exponent, draws, n)[0], exponent


def _volumes(cloud: Tensor, draws: Tensor, n: int) -> tuple[Tensor, bool]:
    """Volumes in fp64, and whether all lengths that entered are far from the ends of fp32."""
    with torch.autocast(cloud.device.type, enabled=False):
        short = cloud.shape[1] <= _FEW_DIMS or cloud.dtype == torch.float64
        dtype = torch.float64 if short else torch.float32
        many = len(cloud) ** 2 <= _GRAM_ENTRIES_PER_DRAW * n
        gram, squared = _edges_from_gram(cloud.to(dtype), draws) if many else _edges(cloud, draws, dtype)
        pivots = _pivots(gram)
        volumes = _volume(pivots)
        # Written so that a NaN is doubtful too, and stays one.
        lowest = pivots.detach().amin(0)
        doubtful = (~(lowest > _DOUBTFUL[dtype] * squared)).nonzero().squeeze(-1)
        if len(doubtful) > 0:
            volumes = volumes.index_copy(0, doubtful, _orthogonalised_volumes(cloud, draws[doubtful]))
        shortest, longest = squared.aminmax()
        usual = float(shortest) >= 4.0**-_USUAL and float(longest) <= 4.0**_USUAL
    return volumes, usual


def _exponent(values: Tensor, dtype: torch.dtype) -> int:
    """k, such that values times 2^-k can be squared in `dtype`; 0 where they can as they are."""
    largest = max(abs(float(end)) for end in values.aminmax()) if values.numel() else 0.0
    exponent = math.frexp(largest)[1] if math.isfinite(largest) else 0
    limit = 120 if dtype == torch.float32 else 1000  # 2^-k is itself a number of that dtype
    return 0 if largest == 0 or abs(exponent) <= _USUAL else max(-limit, min(exponent, limit))


def _orthogonalised_volumes(points: Tensor, draws: Tensor) -> Tensor:
    """Volumes by the modified Gram–Schmidt process in fp64: the product of four heights over 24.

    The farthest corner from what is spanned so far comes first, so that what is flat comes out within a few roundings.
    """
    volumes = []
    for some in draws.split(max(1, _CHUNK // max(1, points.shape[1]))):
        corners = points.index_select(0, some.flatten()).double().unflatten(0, some.shape)
        edges = corners[:, 1:] - corners[:, :1]
        flat = edges.detach().square().sum(-1).amax(-1) * _FLAT**2
        solid, volume = torch.ones_like(flat, dtype=torch.bool), torch.full_like(flat, 1 / 24)
        for left in range(_CORNERS - 2, -1, -1):
            squared, farthest = edges.square().sum(-1).max(-1)
            edge = edges.take_along_dim(farthest[:, None, None], 1)
            first = (torch.arange(1, left + 1, device=edges.device) == farthest[:, None]).unsqueeze(-1)
            edges = torch.where(first, edges[:, :1], edges[:, 1:])  # the others
            solid = solid & ~(squared <= flat)  # NaN goes on
            height = torch.where(solid, squared, 1.0).sqrt()  # no infinite slope of the root at 0
            volume = volume * height
            unit = edge / height[:, None, None]
            edges = edges - (edges * unit).sum(-1, keepdim=True) * unit
        volumes.append(torch.where(solid, volume, 0.0))
    return torch.cat(volumes)


def _edges(points: Tensor, draws: Tensor, dtype: torch.dtype) -> tuple[list[list[Tensor]], Tensor]:
    """⟨p_i − p_0, p_j − p_0⟩ for 1 ≤ j ≤ i ≤ 4, as a triangle of vectors (draws,) in fp64; and the largest of them.

    The largest square that entered says how much of a pivot may be rounding error.
    """
    # A few hundred draws at a time stay in the cache from the gather to the product. Without a gradient all of them use
    # the same memory: new pages for each would cost as much as the gather.
    some_draws = max(1, _CHUNK // points.shape[1])
    buffer = None if points.requires_grad else points.new_empty(min(some_draws, len(draws)) * _CORNERS, points.shape[1])
    grams = []
    for some in draws.split(some_draws):
        room = None if buffer is None else buffer[: some.numel()]
        corners = torch.index_select(points, 0, some.flatten(), out=room).to(dtype).unflatten(0, some.shape)
        edges = corners[:, 1:].sub_(corners[:, :1].clone())
        grams.append(edges @ edges.mT)  # (n, 4, 4)
    rows = torch.cat(grams).flatten(1).mT.double().contiguous().unbind(0)
    gram = [[rows[4 * i + j] for j in range(i + 1)] for i in range(4)]
    return gram, torch.stack([row[-1].detach() for row in gram]).amax(0)


def _edges_from_gram(points: Tensor, draws: Tensor) -> tuple[list[list[Tensor]], Tensor]:
    """The same from the cloud's Gram matrix: G_ij − G_i0 − G_0j + G_00. Centred first, as the differences cancel."""
    n = len(points)
    points = points - points.mean(0)
    gram = (points @ points.mT).flatten()

    def read(rows: Tensor, columns: Tensor) -> Tensor:
        return gram.index_select(0, rows + columns).double()

    columns = draws.mT.contiguous()
    first, others = columns[0] * n, columns[1:]
    origin = read(first, columns[0])
    to_first = [read(first, row) for row in others]
    shifted = [origin - row for row in to_first]
    begins = [row * n for row in others]
    squared = gram.detach()[:: n + 1].double()[columns].amax(0)  # of corners: the differences cancel
    return [[read(begins[i], others[j]) - to_first[i] + shifted[j] for j in range(i + 1)] for i in range(4)], squared


def _pivots(gram: list[list[Tensor]]) -> Tensor:
    """D (4, draws) of L D Lᵀ of symmetric 4 × 4 matrices, unrolled elimination; zero from a zero pivot on."""
    pivots = []
    while gram:
        pivot = gram[0][0]
        pivots.append(pivot)
        usable = pivot > 0
        inverse = torch.where(usable, torch.where(usable, pivot, 1.0).reciprocal(), 0.0)
        column = [row[0] for row in gram[1:]]
        factor = [entry * inverse for entry in column]
        gram = [
            [torch.addcmul(gram[i + 1][j + 1], factor[i], column[j], value=-1) for j in range(i + 1)]
            for i in range(len(column))
        ]
    return torch.stack(pivots)


def _volume(pivots: Tensor) -> Tensor:
    """sqrt(Π pivots) / 24; zero where a pivot is not positive."""
    solid = pivots.amin(0) > 0
    return torch.where(solid, torch.where(solid, pivots, 1.0).prod(0).sqrt(), 0.0) / 24
