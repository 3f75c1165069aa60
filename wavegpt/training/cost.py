"""What a token costs: the arithmetic of matrix products, counted while a model runs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from wavegpt.model import WaveGPT

_ATEN = torch.ops.aten
_FIRST = {_ATEN.mm: 0, _ATEN.bmm: 0, _ATEN.addmm: 1, _ATEN.baddbmm: 1}  # product → place of its first matrix


class _Products(TorchDispatchMode):
    """Counts the multiplications and additions of matrix products."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if (first := _FIRST.get(func.overloadpacket)) is not None:
            self.operations += 2 * out.numel() * args[first].shape[-1]
        return out


def operations_of(call: Callable[[], object]) -> int:
    """Multiplications and additions of the matrix products that `call` takes; masked ones count.

    >>> operations_of(lambda: torch.ones(2, 3) @ torch.ones(3, 5))
    60
    """
    with sdpa_kernel(SDPBackend.MATH), _Products() as counted:  # the fused kernels are no products
        call()
    return counted.operations


@torch.no_grad()
def flops_per_token(model: WaveGPT, context: int) -> int:
    """Of a training step, forward and backward (thrice the forward pass), a token of rows of `context` tokens."""
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    ids: Tensor = torch.zeros(1, context, dtype=torch.long, device=device)
    found = operations_of(lambda: model(ids))
    model.train(training)
    return round(3 * found / context)
