"""A pass of the model over one text, its states and its heads' outputs reduced layer by layer as they are made."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from modulant.backbones.families import parts_of
from modulant.backbones.families.base import sides
from modulant.backbones.opening import Backbone
from probes.attention.reading import decoder_inputs, decoder_of
from probes.spectra.texts import Text

EMBEDDED = -1  # the stream before the first block

OnStates = Callable[[int, Tensor], None]  # layer, (tokens measured, D)
OnHeads = Callable[[int, Tensor], None]  # layer, (tokens measured, heads, width)


def place_of(layer: int) -> str:
    """``embedded``, ``layer_03``."""
    return "embedded" if layer == EMBEDDED else f"layer_{layer:02d}"


def stacks_of(backbone: Backbone) -> dict[str, Backbone]:
    """Prefix of figures → the model with the stack that they are of: of a T5 its encoder, and ``decoder/``."""
    decoder = decoder_of(backbone)
    return {"": backbone} | ({} if decoder is None else {"decoder/": replace(backbone, parts=decoder)})


def as_read(backbone: Backbone, text: Text) -> Text:
    """The tokens at the positions of a stack: of a T5's decoder its start token, and the text without its last."""
    if not backbone.family.needs_encoder:
        return text
    special = torch.cat([torch.tensor([True]), text.special[:-1]])
    return Text(decoder_inputs(backbone, text.ids[None])[0], special)


def run(backbone: Backbone, text: Text, **more: bool) -> Any:
    """What a stack returns for a text; a T5's decoder attends to what the encoder makes of the same text."""
    device = backbone.model.device
    given = {backbone.family.reads: as_read(backbone, text).ids[None].to(device)}
    if backbone.family.needs_encoder:
        encoder = replace(backbone, parts=parts_of(backbone.model, "encoder"))
        given["encoder_hidden_states"] = encoder.encode(text.ids[None].to(device))
    if backbone.family.causal and backbone.family.heads:
        more["use_cache"] = False  # nothing follows that would read it
    return cast(Any, backbone.parts.stack)(**given, **more)


def read(
    backbone: Backbone,
    text: Text,
    layers: Sequence[int],
    on_states: OnStates | None = None,
    on_heads: OnHeads | None = None,
) -> None:
    """Run the model over a text; hooks are removed whatever happens.

    States are the stream after each block, before any final norm, and `EMBEDDED`; a head's output is what its values
    come to, before the output matrix. Both are given as they are made, on the CPU in fp32, for `Text.measured` alone:
    the same tokens in each stack.
    """
    shift = int(backbone.family.needs_encoder)  # a T5's decoder reads a token one position later
    places = text.measured[text.measured + shift < len(text.ids)] + shift
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
            run(backbone, text)
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
