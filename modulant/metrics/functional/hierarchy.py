"""Two more measures of WordNet in a cloud: cosines along hypernym chains and within lexicographers' categories."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_ROUNDING = 1e-12  # of a mean cosine in fp64


@torch.no_grad()
def chain_decay(
    points: Float[Tensor, "points dim"], chains: Int[Tensor, "_ depths"]
) -> dict[str, Float[Tensor, "depths"] | Int[Tensor, "depths"]]:
    """Mean cosine between a synset and its first hypernyms, by how far up they are.

    Args:
        points: one row for each synset of a population.
        chains: row numbers of the same population, at depth 1, 2, … above each synset; -1 where there is none.

    Returns:
        ``cosine``, fp64, NaN at a depth that no chain reaches, and ``count``, the number of links, by depth.

    Raises:
        ValueError: chains of another number of rows than points, or row numbers out of range.

    >>> chain_decay(torch.eye(2), torch.tensor([[1], [-1]]))
    {'cosine': tensor([0.], dtype=torch.float64), 'count': tensor([1])}
    """
    if len(chains) != len(points):
        raise ValueError(f"chain_decay: chains of {len(chains)} rows for {len(points)} points")
    if chains.numel() and (int(chains.min()) < -1 or int(chains.max()) >= len(points)):
        lowest, highest = int(chains.min()), int(chains.max())
        raise ValueError(f"chain_decay: chains hold {lowest} to {highest}; rows are 0 to {len(points) - 1}, or -1")
    unit = _unit(points)
    cosines, counts = [], []
    for column in chains.to(unit.device).unbind(1):
        start = (column >= 0).nonzero().squeeze(1)
        cosines.append((unit[start] * unit[column[start].long()]).sum(-1).mean())  # the mean of nothing is NaN
        counts.append(len(start))
    return {"cosine": torch.stack(cosines).cpu(), "count": torch.tensor(counts)}


@torch.no_grad()
def category_clustering(
    points: Float[Tensor, "points dim"], categories: Int[Tensor, "_"], shuffles: int = 20, seed: int = 42
) -> dict[str, Tensor]:
    """How much closer synsets of one lexicographer's category are to each other than to the rest.

    The mean cosine over the n (n − 1) / 2 pairs of a set is (|Σ u|² − Σ |u|²) / (n (n − 1)) of its unit vectors u.

    Args:
        points: one row for each synset.
        categories: a category number, 0 or more, for each.
        shuffles: number of random permutations of the categories, for the gap's null distribution.
        seed: seed of the permutations.

    Returns:
        fp64 scalars ``within``: mean over all pairs of one category; ``global``: over all pairs; ``gap``: their
        difference; ``null_mean``, ``null_sd`` of the gap under shuffled categories and ``z`` of the gap against it,
        NaN where all shuffles give the same gap, as those of a single category do.
        By category: ``category``: those that occur, ``cosine``: mean within, NaN for one synset alone, ``count``.

    Raises:
        ValueError: fewer than 2 points, another number of categories, negative ones, or fewer than 2 shuffles.
    """
    if len(points) < 2 or len(categories) != len(points):
        raise ValueError(f"category_clustering: got {len(points)} points and {len(categories)} categories; "
                         "there must be as many of both, and at least 2")  # fmt: skip
    if int(categories.min()) < 0:
        raise ValueError(f"category_clustering: categories hold {int(categories.min())}; they count from 0")
    if shuffles < 2:
        raise ValueError(f"category_clustering: shuffles is {shuffles}; a spread needs at least 2")
    unit = _unit(points)
    found, labels = categories.to(unit.device).long().unique(return_inverse=True)
    counts = torch.bincount(labels)
    pairs, sums = _within(unit, labels, len(found))
    total = sums.sum() / pairs.sum()
    everything = (unit.sum(0).square().sum() - unit.square().sum()) / (len(unit) * (len(unit) - 1))
    generator = torch.Generator().manual_seed(seed)
    null = []
    for _ in range(shuffles):
        permuted = labels[torch.randperm(len(labels), generator=generator).to(labels.device)]
        null.append(_within(unit, permuted, len(found))[1].sum() / pairs.sum() - everything)
    spread = torch.stack(null)
    gap = total - everything
    mean, sd = spread.mean(), spread.std(correction=1)
    figures = {"within": total, "global": everything, "gap": gap, "null_mean": mean, "null_sd": sd}
    z = (gap - mean) / sd if sd > _ROUNDING else gap.new_tensor(torch.nan)
    figures |= {"z": z, "category": found, "cosine": sums / pairs, "count": counts}
    return {name: figure.cpu() for name, figure in figures.items()}


def _within(unit: Tensor, labels: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Number of pairs and sum of their cosines in each category."""
    counts = torch.bincount(labels, minlength=n).double()
    sums = sums_by(labels, unit, n, product=unit.is_cuda)
    lengths = sums_by(labels, unit.square().sum(-1, keepdim=True), n, product=unit.is_cuda)[:, 0]
    return counts * (counts - 1) / 2, (sums.square().sum(-1) - lengths) / 2


def sums_by(labels: Int[Tensor, "_"], rows: Float[Tensor, "_ dim"], n: int, product: bool) -> Float[Tensor, "n dim"]:
    """Sums of the rows of each label.

    Args:
        product: as a matrix product, which adds in the same order every time; `index_add_` does not on a GPU.
    """
    if product:
        return torch.nn.functional.one_hot(labels, n).to(rows.dtype).T @ rows
    return rows.new_zeros(n, rows.shape[1]).index_add_(0, labels, rows)


def _unit(points: Tensor) -> Tensor:
    """Unit rows in fp64, on the CPU where the device has no fp64; a row of zeros stays zero."""
    return torch.nn.functional.normalize((points.cpu() if points.device.type == "mps" else points).double(), dim=-1)
