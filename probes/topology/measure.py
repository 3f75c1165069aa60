"""Figures of one block: its matrices, its heads, its neurons, its norms, and how alike it is to the block before."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from modulant.geometry import (
    bilinear_form,
    effective_ranks,
    entry_figures,
    gaussian_entries,
    gaussian_profile,
    gaussian_ranks,
    leading_ranks,
    positive_share,
    singular_figures,
    singular_values,
    spectrum_profile,
    stream_gram,
    symmetric_figures,
    trace_cosine,
)
from probes.topology import PARTS
from probes.topology.initial import initial_sd
from probes.topology.layout import Block, Norm
from probes.topology.reader import Weights

Row = dict[str, Any]
Heads = tuple[Tensor, Tensor]  # both sides of a form, (heads, head width, width of the stream)

PERMUTATIONS = 5  # of the stream's coordinates, a pair of blocks and a kind


@dataclass
class Carry:
    """What the next block of the same stack is compared with.

    Its matrices are not kept, but read again.

    Attributes:
        block: the one before.
        heads: kind of form → its right sides.
        grams: kind of matrix → its Gram matrix on the side of the stream.
    """

    block: Block
    heads: dict[str, Tensor] = field(default_factory=dict)
    grams: dict[str, Tensor] = field(default_factory=dict)


class Matrices(Mapping[str, Tensor]):
    """Kind → matrix of a block, of what the files have: read whenever it is asked for, and not kept.

    Args:
        block: whose.
        weights: the files.
    """

    def __init__(self, block: Block, weights: Weights) -> None:
        self._shape, self._weights = block.shape, weights
        self._stored = {kind: one for one in block.tensors if one.name is not None for kind in one.kinds}

    def __getitem__(self, kind: str) -> Tensor:
        return self._stored[kind].split(self._weights.read(self.name(kind)), self._shape)[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def name(self, kind: str) -> str:
        """Name in the files."""
        name = self._stored[kind].name
        assert name is not None
        return name

    def leave_out(self, kind: str) -> None:
        del self._stored[kind]


def matrix_row(matrix: Tensor, about: Mapping[str, Any], sd: float | None, ranks: str) -> Row:
    """Ranks and entries of a matrix (out, in), with their Gaussian nulls; of a damaged one only its share that is not.

    Args:
        matrix: in fp32.
        about: what identifies it.
        sd: at which it was initialised, if known.
        ranks: way of `RANKS`.
    """
    m, n = matrix.shape
    row: Row = {**about, "shape": [m, n]}
    entries = entry_figures(matrix)
    finite = entries.pop("finite")
    if finite < 1:
        return row | {"damaged": round((1 - finite) * m * n)}
    profile, null = None, None
    if ranks == "fast":
        found = leading_ranks(matrix)
    else:
        singular = singular_values(matrix, exact=ranks == "exact")
        found = effective_ranks(singular)
        if singular[0] > 0:
            profile, null = spectrum_profile(singular), gaussian_profile(m, n)
    row |= found | entries
    row["rms_over_init"] = None if sd is None else entries["rms"] / sd
    nulls = {name: null for name, null in gaussian_ranks(m, n).items() if name in found}
    row["nulls"] = {**nulls, **gaussian_entries(entries["rms"])}
    if profile is not None and null is not None:
        row["spectrum"] = [round(value, 4) for value in profile]
        row["nulls"]["spectrum"] = [round(value, 4) for value in null]
    return row


def attentions(block: Block, matrices: Mapping[str, Tensor], weights: Weights) -> Iterator[tuple[str, Heads]]:
    """Both sides of each head's forms, with the gains of the norms before it folded in.

    Yields:
        ``self_qk``, ``self_ov``, and of a decoder with an encoder ``cross_qk``, ``cross_ov``: queries and keys, or
        transposed outputs and values. Heads that share keys and values each get theirs.
    """
    shape = block.shape
    d, shared = shape.head_width, shape.n_heads // shape.n_kv_heads

    def folded(kind: str, norm: str) -> Tensor:
        return _fold(block.norms.get(norm), matrices[kind], weights)

    def heads(matrix: Tensor, norm: str = "") -> Tensor:
        parts = matrix.unflatten(0, (-1, d))
        if norm in block.norms:  # which acts on each head's own values
            parts = _fold(block.norms[norm], parts.mT, weights).mT
        return parts

    for where in ("self", "cross"):
        keys = "cross_keys" if where == "cross" else "self"
        if {f"{where}_q", f"{where}_k"} <= matrices.keys():
            right = heads(folded(f"{where}_k", keys), "k")
            yield f"{where}_qk", (heads(folded(f"{where}_q", where), "q"), right.repeat_interleave(shared, 0))
        if {f"{where}_v", f"{where}_o"} <= matrices.keys():
            right = heads(folded(f"{where}_v", keys))
            yield f"{where}_ov", (heads(matrices[f"{where}_o"].mT), right.repeat_interleave(shared, 0))


def _fold(norm: Norm | None, matrix: Tensor, weights: Weights) -> Tensor:
    if norm is None:
        return matrix
    assert norm.gain is not None
    return norm.fold(matrix, weights.read(norm.gain))


def head_figures(kind: str, left: Tensor, right: Tensor) -> dict[str, Tensor]:
    """Figures of each head. Across two spaces, the decoder's and the encoder's, only singular values have a meaning."""
    form = bilinear_form(left, right)
    found = singular_figures(form)
    if not kind.startswith("cross"):
        found |= symmetric_figures(form) | {"trace_cosine": trace_cosine(left, right)}
    return found


def measure_block(
    block: Block,
    weights: Weights,
    config: Any,
    before: Carry | None,
    ranks: str,
    seed: int,
    only: Collection[str] = PARTS,
) -> tuple[dict[str, list[Row]], Carry]:
    """Everything about a block, as rows by what they are about.

    Args:
        block: which one.
        weights: whose.
        config: with the sizes of its stack.
        before: of the block before it, for nulls of heads and for similarities; None at the first.
        ranks: way of `RANKS`.
        seed: of the permutations of the stream's coordinates.
        only: which of `PARTS` to measure.
    """
    matrices = Matrices(block, weights)
    about = {"location": block.location, "layer": block.layer}
    rows: dict[str, list[Row]] = {part: [] for part in PARTS}
    carry = Carry(block)
    generator = torch.Generator().manual_seed(seed + block.layer)
    for kind in list(matrices):
        matrix = matrices[kind]
        if "matrices" in only:
            identity = {"name": matrices.name(kind), "kind": kind, **about}
            row = matrix_row(matrix, identity, initial_sd(config, kind, block.shape), ranks)
            if kind == "cross_q" and "cross_k" in matrices and "damaged" not in row:
                _add_signs(row, matrix, matrices["cross_k"], seed + block.layer)
            rows["matrices"].append(row)
        if not matrix.isfinite().all():
            matrices.leave_out(kind)
        elif "between" in only:
            carry.grams[kind] = stream_gram(_reads(kind, matrix))
            if before is not None and kind in before.grams:
                found = _similarity(carry.grams[kind], before.grams.pop(kind), generator)
                rows["between"].append({**about, "kind": kind, **found, **_cosine(kind, matrix, before.block, weights)})
        del matrix
    if "heads" in only and block.has_gains:
        for kind, (left, right) in attentions(block, matrices, weights):
            rows["heads"] += _head_rows(kind, left, right, before, about)
            carry.heads[kind] = right
    if "neurons" in only and block.has_gains and {"mlp_up", "mlp_down"} <= matrices.keys():
        rows["neurons"] = [about | _neurons(block, matrices, weights)]
    for place, norm in block.norms.items() if "norms" in only else ():
        if norm.gain is not None and place in ("self", "cross", "mlp"):
            rows["norms"].append({"name": norm.gain, "place": place, **about, **_gain(weights.read(norm.gain), norm)})
    return rows, carry


def carried(block: Block, weights: Weights, only: Collection[str] = PARTS) -> Carry:
    """What the next block needs of this one, once more, where a measurement is resumed."""
    matrices, carry = Matrices(block, weights), Carry(block)
    for kind in list(matrices):
        matrix = matrices[kind]
        if not matrix.isfinite().all():
            matrices.leave_out(kind)
        elif "between" in only:
            carry.grams[kind] = stream_gram(_reads(kind, matrix))
    if "heads" in only and block.has_gains:
        carry.heads = {kind: right for kind, (_, right) in attentions(block, matrices, weights)}
    return carry


def _head_rows(kind: str, left: Tensor, right: Tensor, before: Carry | None, about: Mapping[str, Any]) -> list[Row]:
    """A row a head. Its null is the same of its left side and the right one of this head in the block before."""
    if not (left.isfinite().all() and right.isfinite().all()):
        return []
    figures = {name: values.tolist() for name, values in head_figures(kind, left, right).items()}
    nulls: dict[str, list[float]] = {}
    if before is not None and kind in before.heads:
        apart = head_figures(kind, left, before.heads.pop(kind))
        nulls = {name: values.tolist() for name, values in apart.items() if not name.startswith("source/")}
    return [
        {
            **about,
            "head": head,
            "kind": kind,
            **{name: values[head] for name, values in figures.items()},
            "nulls": {name: values[head] for name, values in nulls.items()},
        }
        for head in range(len(left))
    ]


def _add_signs(row: Row, queries: Tensor, keys: Tensor, seed: int) -> None:
    """The source's figure of cross-attention; its null has the rows of W_k permuted."""
    if len(queries) == len(keys) and keys.isfinite().all():
        order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed)).to(keys.device)
        row["source/positive_share"] = positive_share(queries, keys)
        row["nulls"]["source/positive_share"] = positive_share(queries, keys[order])


def _reads(kind: str, matrix: Tensor) -> Tensor:
    """A matrix with the stream along its columns: what reads it as it is, what writes into it transposed."""
    return matrix.mT if kind.endswith(("_o", "_down")) else matrix


def _similarity(gram: Tensor, other: Tensor, generator: torch.Generator) -> Row:
    """cos(G_l, G_l−1), and the same with the stream's coordinates permuted."""
    orders = [torch.randperm(len(gram), generator=generator).to(gram.device) for _ in range(PERMUTATIONS)]
    nulls = [float((gram * other[order][:, order]).sum()) for order in orders]
    return {"similarity": float((gram * other).sum()), "nulls": {"similarity": nulls}}


def _cosine(kind: str, matrix: Tensor, block: Block, weights: Weights) -> Row:
    """The source's figure, a cosine of the weights, which depends on the order of neurons and the basis of heads."""
    stored = next(one for one in block.tensors if kind in one.kinds)
    if stored.name is None:
        return {}
    other = stored.split(weights.read(stored.name), block.shape)[kind]
    if other.shape != matrix.shape:
        return {}
    return {
        "source/cosine": float((matrix * other).sum() / (matrix.norm() * other.norm())),
        "source/cosine_null_sd": matrix.numel() ** -0.5,
    }


def _neurons(block: Block, matrices: Mapping[str, Tensor], weights: Weights) -> Row:
    r"""Couplings of the neurons: the geometric mean of their norms in gate, up and down, over its median.

    Of Gaussian rows of n entries the logarithm of a norm has the sd 1/√(2n).
    """
    norm = block.norms.get("mlp")
    read = (_fold(norm, matrices[kind], weights) for kind in ("mlp_gate", "mlp_up") if kind in matrices)
    sides, widths = zip(*((one.norm(dim=1), one.shape[1]) for one in (*read, matrices["mlp_down"].mT)), strict=True)
    coupling = torch.stack(sides).double().log().mean(0).exp()
    coupling = coupling / coupling.median()
    null = math.sqrt(sum(1 / (2 * width) for width in widths)) / len(widths)
    return {
        "n": len(coupling),
        "cv": float(coupling.std() / coupling.mean()),
        "minimum": float(coupling.min()),
        "weak": int((coupling < 0.1).sum()),
        "nulls": {"cv": null},
    }


def _gain(stored: Tensor, norm: Norm) -> Row:
    """A norm's gains: mean, variation of their sizes, changes of sign, and the source's counts by fixed limits."""
    gain = stored.double() + norm.offset
    sizes = gain.abs()
    return {
        "mean": float(gain.mean()),
        "cv": float(sizes.std() / sizes.mean()),
        "negative": float((gain < 0).double().mean()),
        "source/high": float((gain > 1.5).double().mean()),
        "source/low": float((gain < 0.5).double().mean()),
    }
