"""What the processes of one run owe each other before the first step: the same frozen weights.

DistributedDataParallel would see to that by sending the first process's backbone to all others, 242 MB for T5-small.
But each process has read it from the same place, and nothing changes it. So a check of 32 bytes goes over the wire.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

# As wide as an element, so that a sum is of its bits and not of what they mean: exact in any order, on any device.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

T = TypeVar("T")


def dealt(batches: Sequence[T], rank: int, world: int) -> list[tuple[T, bool]]:
    """A process's share, and of each batch whether it counts: every process gets as many, since a forward pass may be a
    collective, and where they do not go round the last ones get one that is another's.

    >>> dealt("abc", 1, 2)
    [('b', True), ('a', False)]
    """
    own = [(batch, True) for batch in batches[rank::world]]
    return own + [(batches[0], False)] * (-(-len(batches) // world) - len(own))


def frozen_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Buffers and parameters that do not learn, by every name that they have (tied weights have several)."""
    parameters = module.named_parameters(remove_duplicate=False)
    return {name: p for name, p in parameters if not p.requires_grad} | dict(
        module.named_buffers(remove_duplicate=False)
    )


def digest(tensors: Iterable[tuple[str, Tensor]]) -> bytes:
    """32 bytes for names, types, shapes and contents. Of a matrix those are its rows' and its columns' sums, of bits,
    which tell any element that differs and any two rows or columns that have changed places; they are taken where the
    tensor is, at the speed of its memory.

    >>> a, b = torch.zeros(2, 3), torch.zeros(2, 3)
    >>> b[1, 2] = 1e-30
    >>> digest([("w", a)]) == digest([("w", b)])
    False
    """
    sha = hashlib.sha256()
    for name, tensor in tensors:
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().reshape(len(tensor) if tensor.dim() else 1, -1).contiguous()
        bits = flat.view(_BITS[tensor.element_size()])
        for sums in (bits,) if tensor.dim() < 2 else (bits.sum(0, dtype=torch.int64), bits.sum(1, dtype=torch.int64)):
            sha.update(sums.cpu().numpy().tobytes())
    return sha.digest()


def check_same(module: nn.Module) -> None:
    """That all processes of a run hold the same frozen weights, as far as each holds them whole. A collective.

    Raises:
        ValueError: on every process, where they do not.
    """
    if not distributed.is_initialized() or (world := distributed.get_world_size()) == 1:
        return
    frozen = frozen_tensors(module)
    names = {id(tensor): name for name, tensor in reversed(frozen.items())}  # each tensor once, by its first name
    own = digest((names.pop(id(t)), t) for t in frozen.values() if id(t) in names and not isinstance(t, DTensor))
    found: list[bytes] = [b""] * world
    distributed.all_gather_object(found, own)
    if others := [str(rank) for rank, theirs in enumerate(found) if theirs != found[0]]:
        raise ValueError(
            f"model.backbone: process{'es' if len(others) > 1 else ''} {', '.join(others)} of {world} began with other "
            "frozen weights than process 0; give every machine the same files, or a hub id at one revision, and the "
            "same seed_everything"
        )
