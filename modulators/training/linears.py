"""Linear layers by the faster library for matrix products, while a model is measured."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modulant.geometry.products import products, takes_onednn


@contextmanager
def faster_linears(model: nn.Module) -> Iterator[None]:
    """Context in which linear layers in fp32 on the CPU use `products`: last digits may differ from torch's own.

    For passes without gradients. Under autocast layers stay as they are.
    """
    layers = [
        layer
        for layer in model.modules()
        if type(layer) is nn.Linear and "forward" not in vars(layer) and takes_onednn(layer.weight)
    ]
    for layer in layers:
        layer.forward = partial(_linear, layer)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _linear(layer: nn.Linear, rows: Tensor) -> Tensor:
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return F.linear(rows, layer.weight, layer.bias)
    found = products(rows, layer.weight)
    return found if layer.bias is None else found.add_(layer.bias)
