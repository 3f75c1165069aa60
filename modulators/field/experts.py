"""One expert of the field: a simplex, how the stream deforms it, and how many features its shape has."""

import math

import torch
from torch import Tensor, nn

from modulant.geometry import regular_simplex


class SimplexExpert(nn.Module):
    """One simplex: its frozen regular template, its deformation by the stream, and the features of its shape.

    Linear layers start as `torch.nn.Linear` does, the source's choice: a gate begins near one half, not at one.

    Args:
        k: dimension of the simplex.
        dim: dimensions of the space that it lies in.
        n_active: width of what deforms it.
        validity_gate: whether it has a validity head.
        linear: read linear functions of the vertices, as many as the shape has features (`readout`).
    """

    template: Tensor
    readout: Tensor | None

    def __init__(self, k: int, dim: int, n_active: int, validity_gate: bool, linear: bool = False) -> None:
        super().__init__()
        self.k, self.dim = k, dim
        self.n_features = n_features_of(k)
        # Not persistent: they follow from k and dim.
        self.register_buffer("template", regular_simplex(k, dim), persistent=False)
        self.register_buffer("readout", _isometry(self.n_features, (k + 1) * dim) if linear else None, persistent=False)
        self.to_deform = nn.Linear(n_active, (k + 1) * dim)
        self.norm = nn.LayerNorm(self.n_features)
        self.validity_proj = nn.Linear(self.n_features, 1) if validity_gate else None

    def restore(self) -> None:
        """Make the template and the readout again."""
        with torch.device("cpu"):
            template = regular_simplex(self.k, self.dim)
            readout = _isometry(self.n_features, template.numel())
        self.template = template.to(self.to_deform.weight)
        if self.readout is not None:
            self.readout = readout.to(self.to_deform.weight)


def n_features_of(k: int) -> int:
    """Squared edges of a k-simplex, and its squared volume."""
    return k * (k + 1) // 2 + 1


def _isometry(rows: int, columns: int) -> Tensor:
    """The first rows of the discrete cosine transform, which are orthonormal."""
    row, column = torch.arange(rows)[:, None], torch.arange(columns)
    cosines = torch.cos(math.pi / columns * row * (column + 0.5)) * math.sqrt(2 / columns)
    return torch.where(row == 0, 1 / math.sqrt(columns), cosines)


def edges_of(vertices: Tensor, k: int) -> Tensor:
    """From the first vertex to the k others: ((k + 1) · dim, …) to (k · dim, …)."""
    first, others = vertices.reshape(k + 1, -1).split([1, k])
    return (others - first).view(-1, *vertices.shape[1:])
