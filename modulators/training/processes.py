"""Distributed helpers: shard batches over ranks, gather rows, check that all ranks hold the same frozen weights.

DistributedDataParallel would broadcast rank 0's backbone, 242 MB for T5-small. But each process has read it from the
same place, and nothing changes it; so only a digest of 32 bytes is exchanged.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

# Integer types as wide as an element: sums of bit patterns are exact in any order, on any device.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

T = TypeVar("T")


def shard_batches(batches: Sequence[T], rank: int, world_size: int) -> list[tuple[T, bool]]:
    """Return a rank's share of the batches, each with whether it counts.

    All ranks get equally many, since a forward pass may be a collective; a rank that lacks one gets the first batch
    again, which does not count.

    >>> shard_batches("abc", 1, 2)
    [('b', True), ('a', False)]
    """
    own = [(batch, True) for batch in batches[rank::world_size]]
    return own + [(batches[0], False)] * (-(-len(batches) // world_size) - len(own))


def gathered(own: Tensor, total: int) -> Tensor:
    """Rows of all ranks, (total, D), in the order of the whole batch, of which rank r has rows r, r + world, ….

    Each rank computes the same loss of all rows, and its gradient reaches its own rows alone, times the number of
    ranks: the mean over ranks that data-parallel training takes is then the gradient of that loss. A collective.

    Args:
        own: (rows, D); a rank without a row has one that does not count.
        total: rows of the whole batch.
    """
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return own
    rows: Tensor = _Gathered.apply(own, total)  # type: ignore[no-untyped-call]
    return rows


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, total: int) -> Tensor:
        ctx.rank, ctx.world, ctx.shape = distributed.get_rank(), distributed.get_world_size(), own.shape
        mine = len(range(ctx.rank, total, ctx.world))
        padded = own.new_zeros(-(-total // ctx.world), own.shape[1])
        padded[:mine] = own[:mine]
        found = [torch.empty_like(padded) for _ in range(ctx.world)]
        distributed.all_gather(found, padded)
        return torch.stack(found, dim=1).flatten(0, 1)[:total]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        by_own, mine = grad.new_zeros(ctx.shape), grad[ctx.rank :: ctx.world]
        by_own[: len(mine)] = ctx.world * mine
        return by_own, None


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Buffers and frozen parameters, by all of their names (tied weights have several)."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {name: p for name, p in parameters if not p.requires_grad} | dict(
        module.named_buffers(remove_duplicate=False)
    )


def digest(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """32-byte digest of names, dtypes, shapes and contents.

    Of a matrix, the row and column sums of its bit patterns are hashed, which detects a changed element and swapped
    rows or columns; they are computed on the tensor's device, at memory bandwidth.

    >>> a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    >>> b[1, 2] = 1e-30
    >>> digest([("w", a)]) == digest([("w", b)])
    False
    >>> digest([("none", torch.zeros(0))]) == digest([("none", torch.zeros(0, 0))])
    False
    """
    sha = hashlib.sha256()
    for name, tensor in tensors:
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = (tensor.detach().flatten(1) if tensor.dim() > 1 else tensor.detach().reshape(-1, 1)).contiguous()
        bits = flat.view(_BITS[tensor.element_size()])
        for sums in (bits,) if tensor.dim() < 2 else (bits.sum(0, dtype=torch.int64), bits.sum(1, dtype=torch.int64)):
            sha.update(sums.cpu().numpy().tobytes())
    return sha.digest()


def check_same_weights(module: nn.Module) -> None:
    """Check that all ranks hold the same frozen weights; sharded tensors are not compared. A collective.

    Raises:
        ValueError: on every rank, if they differ.
    """
    if not distributed.is_initialized() or (world := distributed.get_world_size()) == 1:
        return
    frozen = frozen_tensors(module)
    names = {id(tensor): name for name, tensor in reversed(frozen.items())}  # each tensor once, under its first name
    own = digest((names.pop(id(t)), t) for t in frozen.values() if id(t) in names and not isinstance(t, DTensor))
    found: list[bytes] = [b""] * world
    distributed.all_gather_object(found, own)
    if others := [str(rank) for rank, theirs in enumerate(found) if theirs != found[0]]:
        raise ValueError(
            f"model.backbone: rank{'s' if len(others) > 1 else ''} {', '.join(others)} of {world} started with other "
            "frozen weights than rank 0; give every machine the same files, or a hub id at one revision, and the "
            "same seed_everything"
        )
