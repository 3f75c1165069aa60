"""Pentachora of a cloud of points: volumes of seeded draws of five, and how unequal they are.

The coefficient of variation (CV) of the volumes does not change under rotation, shift or scaling. By itself it says
little: any cloud has one, and a Gaussian cloud's depends mostly on its number of effective dimensions. So the null
stands beside it: the CV of Gaussian clouds of the same size and per-dimension scale.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CORNERS = 5
# Below this ratio of a pivot to the scale of its row's rounding errors, fp32 keeps fewer than five digits of a volume.
_DEGENERATE = 1e-2
# A global Gram matrix costs N² dot products, direct edges 10 per draw; the gathers are cheaper than the edges' memory.
_GRAM_ENTRIES_PER_DRAW = 10


def pentachoron_draws(n_points: int, n: int, seed: int) -> Int[Tensor, "draws 5"]:
    """Row numbers of `n` draws, five distinct rows in each; equal seeds give equal draws on every device.

    Each draw is uniform over ordered selections without replacement: the j-th number is drawn among the rows that are
    left and then moved past the ones already taken, in ascending order.

    Raises:
        ValueError: fewer than 5 points, or fewer than 1 draw.
    """
    if n_points < _CORNERS:
        raise ValueError(f"pentachoron_draws: got {n_points} points; a pentachoron needs at least {_CORNERS}")
    if n < 1:
        raise ValueError(f"pentachoron_draws: n is {n}; at least 1 draw is needed")
    generator = torch.Generator().manual_seed(seed)
    taken = torch.empty(n, 0, dtype=torch.long)
    columns: list[Tensor] = []
    for j in range(_CORNERS):
        row = torch.randint(n_points - j, (n,), generator=generator)
        for earlier in taken.unbind(-1):
            row = row + (row >= earlier)
        columns.append(row)
        taken = torch.stack(columns, dim=-1).sort(dim=-1).values
    return torch.stack(columns, dim=-1)


def pentachoron_volumes(points: Float[Tensor, "points dim"], n: int = 1000, seed: int = 42) -> Float[Tensor, "draws"]:
    """Volumes sqrt(det Gram of 4 edges) / 24 of seeded draws of five distinct points. Unit: length⁴.

    The cloud is centred first; the determinant is the product of the pivots of L D Lᵀ. Draws with a tiny pivot
    (nearly flat, or small beside the cloud) are computed again in fp64.

    Raises:
        ValueError: fewer than 5 points.
    """
    draws = pentachoron_draws(len(points), n, seed).to(points.device)
    if points.dtype in (torch.float16, torch.bfloat16):
        points = points.float()
    points = points - points.mean(0)
    with torch.autocast(points.device.type, enabled=False):
        if len(points) ** 2 <= _GRAM_ENTRIES_PER_DRAW * n:
            edge_gram, scale = _edge_gram_by_gathers(points @ points.mT, draws)
        else:
            edge_gram = _edge_gram(points, draws)
            scale = edge_gram.diagonal(dim1=-2, dim2=-1)
        pivots = _pivots(edge_gram)
        volumes = _volume(pivots)
        if points.dtype == torch.float64:
            return volumes
        doubtful = (pivots < _DEGENERATE * scale).any(-1).nonzero().squeeze(-1)
        if len(doubtful) > 0:
            # fp64 does not exist on Apple's GPU.
            exact = (points.cpu() if points.device.type == "mps" else points).double()
            again = _volume(_pivots(_edge_gram(exact, draws[doubtful].to(exact.device))))
            volumes = volumes.index_copy(0, doubtful, again.to(volumes))
        return volumes


def pentachoron_cv(points: Float[Tensor, "points dim"], n: int = 1000, seed: int = 42) -> Float[Tensor, ""]:
    """Standard deviation over mean (both of the population) of `pentachoron_volumes`. Unitless.

    NaN when every drawn pentachoron is flat.

    Raises:
        ValueError: fewer than 5 points.
    """
    volumes = pentachoron_volumes(points, n, seed)
    return volumes.std(correction=0) / volumes.mean()


def gaussian_null_cv(
    points: Float[Tensor, "points dim"], n: int = 1000, seed: int = 42, repeats: int = 20
) -> Float[Tensor, "repeats"]:
    """CVs of `repeats` Gaussian clouds with the number of points and the per-dimension scale of `points`.

    What a CV is worth is seen against these: z = (cv − mean) / sd. The clouds have no correlation between dimensions,
    so a CV above the null speaks of fewer effective dimensions or of heavy tails. Their mean is left at the origin: the
    CV does not see it.

    Raises:
        ValueError: fewer than 5 points, or fewer than 2 repeats.
    """
    if repeats < 2:
        raise ValueError(f"gaussian_null_cv: repeats is {repeats}; a spread needs at least 2")
    scale = points.detach().float().std(dim=0, correction=0)
    # Drawn on the CPU, so that the null too is the same whatever the device. Offset: not the seed of the draws.
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.empty(points.shape)
    return torch.stack(
        [pentachoron_cv(noise.normal_(generator=generator).to(scale.device) * scale, n, seed) for _ in range(repeats)]
    )


def _edge_gram(points: Tensor, draws: Tensor) -> Tensor:
    corners = points[draws]  # (n, 5, D)
    edges = corners[:, 1:] - corners[:, :1]
    return edges @ edges.mT  # (n, 4, 4)


def _edge_gram_by_gathers(gram: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """The same from the cloud's Gram matrix: ⟨p_i − p_0, p_j − p_0⟩ = G_ij − G_i0 − G_0j + G_00.

    Also the scale that its rounding errors have: the differences cancel, so that is the corners' own squared length.
    """
    corners = gram[draws.unsqueeze(-1), draws.unsqueeze(-2)]  # (n, 5, 5)
    to_first = corners[:, 1:, :1]
    edge_gram = corners[:, 1:, 1:] - to_first - to_first.mT + corners[:, :1, :1]
    lengths = corners.diagonal(dim1=-2, dim2=-1)
    return edge_gram, lengths[:, 1:] + lengths[:, :1]


def _pivots(gram: Tensor) -> Tensor:
    """D of L D Lᵀ of symmetric 4 x 4 matrices, unrolled: elimination, row by row. Zero from the first zero pivot on."""
    pivots = []
    for _ in range(gram.shape[-1] - 1):
        pivot = gram[..., 0, 0]
        pivots.append(pivot)
        column = gram[..., 1:, :1]
        usable = (pivot > 0)[..., None, None]
        factor = column / torch.where(usable, pivot[..., None, None], 1.0)
        gram = torch.where(usable, gram[..., 1:, 1:] - factor * column.mT, 0.0)
    return torch.stack([*pivots, gram[..., 0, 0]], dim=-1)


def _volume(pivots: Tensor) -> Tensor:
    """sqrt(Π pivots) / 24, root before product: the product of four squared lengths leaves the range of fp32 sooner."""
    solid = pivots > 0
    return torch.where(solid, torch.where(solid, pivots, 1.0).sqrt(), 0.0).prod(-1) / 24
