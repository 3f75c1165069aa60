"""A pass of the model over one text, its states and its heads' outputs reduced layer by layer as they are made."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modulant.backbones.families.base import sides
from modulant.backbones.opening import Backbone
from probes.spectra.texts import Text

EMBEDDED = -1  # the stream before the first block

OnStates = Callable[[int, Tensor], None]  # layer, (tokens measured, D)
OnHeads = Callable[[int, Tensor], None]  # layer, (tokens measured, heads, width)


def place_of(layer: int) -> str:
    """``embedded``, ``layer_03``."""
    return "embedded" if layer == EMBEDDED else f"layer_{layer:02d}"


def read(
    backbone: Backbone,
    text: Text,
    layers: Sequence[int],
    on_states: OnStates | None = None,
    on_heads: OnHeads | None = None,
) -> None:
    """Run the model over a text; hooks are removed whatever happens.

    States are the stream after each block, before any final norm, and `EMBEDDED`; a head's output is what its values
    come to, before the output matrix. Both are given as they are made, on the CPU in fp32, for `Text.measured` alone.
    """
    places = text.measured
    handles: list[Any] = []

    def chosen(states: Tensor) -> Tensor:
        return states[0].float().cpu()[places]

    def after(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            assert on_states is not None
            on_states(layer, chosen(output[0] if isinstance(output, tuple) else output))

        return hook

    def before(_module: nn.Module, given: Any) -> None:
        assert on_states is not None
        on_states(EMBEDDED, chosen(given[0]))

    def mixed(layer: int) -> Any:
        def hook(_module: nn.Module, given: Any) -> None:
            assert on_heads is not None
            rows = chosen(given[0])
            on_heads(layer, rows.unflatten(-1, (backbone.shape.n_heads, -1)))

        return hook

    if on_states is not None:
        handles.append(backbone.blocks[0].register_forward_pre_hook(before))
        handles += [backbone.blocks[layer].register_forward_hook(after(layer)) for layer in layers]
    if on_heads is not None:
        handles += [output_matrix(backbone, layer).register_forward_pre_hook(mixed(layer)) for layer in layers]
    try:
        with torch.inference_mode():
            backbone.encode(text.ids[None].to(backbone.model.device))
    finally:
        for handle in handles:
            handle.remove()


def output_matrix(backbone: Backbone, layer: int) -> nn.Module:
    """The matrix that brings the heads of a block back to the stream."""
    (matrix,) = backbone.family.matrices_of(backbone.blocks[layer])["o"].values()
    return matrix


def output_weights(backbone: Backbone, layer: int) -> Tensor:
    """(heads, width, D): a head's output y goes to the stream as y @ W.

    Read off by what the module makes of unit vectors, so that an adapter on it counts; its hooks are not called.
    """
    matrix = output_matrix(backbone, layer)
    n, device = sides(matrix)[0], backbone.model.device
    with torch.inference_mode():
        bias = matrix.forward(torch.zeros(1, n, device=device))
        rows = (matrix.forward(torch.eye(n, device=device)) - bias).float().cpu()
    return rows.unflatten(0, (backbone.shape.n_heads, -1))
