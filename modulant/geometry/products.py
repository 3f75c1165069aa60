"""Matrix products in fp32 on the CPU, by the faster of the two libraries in torch's build.

torch hands them to MKL, which leaves AMD's AVX-512 units idle; oneDNN uses them: 2.2 times as fast there, as fast on
Intel. Only measurements call this: training's bits are those of torch's own products.
"""

import platform

import torch
from jaxtyping import Float
from torch import Tensor

_LIKE = "x86_64", "AMD64"
_ONEDNN = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if platform.machine() in _LIKE and torch.backends.mkldnn.is_available()
    else None
)


def products(rows: Float[Tensor, "*batch dim"], others: Float[Tensor, "others dim"]) -> Float[Tensor, "*batch others"]:
    """Dot products of all rows with all others, ``rows @ others.mT``, without a gradient.

    >>> products(torch.eye(2), torch.tensor([[1.0, 2.0]]))
    tensor([[1.],
            [2.]])
    """
    if _ONEDNN is None or not takes_onednn(rows, others):
        return rows @ others.mT
    found: Tensor = _ONEDNN(rows.contiguous(), others.contiguous(), None, "none", [], "")  # of slices it is slow
    return found


def takes_onednn(*tensors: Tensor) -> bool:
    """Whether oneDNN multiplies these: dense, in fp32, on the CPU, and not empty."""
    return _ONEDNN is not None and all(
        one.dtype == torch.float32 and one.device.type == "cpu" and one.layout == torch.strided and one.numel() > 0
        for one in tensors
    )
