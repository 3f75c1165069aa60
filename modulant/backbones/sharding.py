"""Shard a frozen backbone over ranks (FSDP2), if it does not fit on each.

Each rank holds its rows of every block's weights. A block's weights are gathered before its forward pass, and again
before its backward pass, and freed afterwards. Frozen weights have no gradients, so nothing else is communicated for
them. Embeddings and the output head, which encoder and decoder share, and trained parameters stay whole on every rank.

**Order of hooks.** FSDP puts its forward pre-hook before all others of a block, whenever it is registered. So a
modulator's hook runs with the block's weights gathered, reads the stream unchanged (no mixed precision policy is set,
which would cast it first), and its backward pass comes before FSDP frees the weights: FSDP does not touch a modulator.
A test checks that.

**Loading.** The model is created on the meta device and sharded there; then each rank reads its rows from the
memory-mapped files. No rank ever holds more than its shard, the embeddings (temporarily once for each of their uses),
and one tensor.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForSeq2SeqLM

from modulant.assets import resolve_backbone
from modulant.backbones.generation import folder_settings
from modulant.backbones.loading import freeze, translate_weight_errors
from modulant.backbones.t5 import set_output_scale
from modulant.backbones.weights import EMBEDDINGS, Rows, stored_tensors


def load_sharded(backbone: str, config: Any, dtype: torch.dtype, mesh: DeviceMesh, device: torch.device) -> Any:
    """Load a T5 with its blocks sharded over a one-dimensional mesh, frozen and in eval mode. A collective.

    Raises:
        ValueError: the weights cannot be read, are incomplete, or have other shapes.
    """
    with torch.device("meta"):
        model = freeze(AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False, dtype=dtype))
    shard(model, mesh)
    model.to_empty(device=device)
    model.tie_weights()
    with translate_weight_errors(backbone):
        stored = dict(stored_tensors(resolve_backbone(backbone)))
        _untie(model, stored)
        _fill(model, stored, backbone)
        model.generation_config = folder_settings(resolve_backbone(backbone), config)
    set_output_scale(model)
    return model


def shard(model: Any, mesh: DeviceMesh) -> None:
    """Shard encoder and decoder block by block. Their forward passes are collectives from then on."""
    heads = [model.get_input_embeddings(), model.get_output_embeddings()]
    whole = {parameter for head in heads for parameter in head.parameters()}
    for stack in (model.encoder, model.decoder):
        for block in stack.block:
            fully_shard(block, mesh=mesh)
        # The stacks and not the model are roots, since the encoder is also called by itself.
        fully_shard(stack, mesh=mesh, ignored_params=whole)
    # Read by generate(): every token is a collective, so no rank may stop before all have finished.
    model._is_fsdp_managed_module = True


def local_shard(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor: the whole tensor if it is not sharded."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _untie(model: Any, stored: Mapping[str, Rows]) -> None:
    """Give the model a separate output head if the files have one, as those of T5 v1.1 do.

    In transformers 5 every T5 is created with its embeddings as head. They are stored under any of their names.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    own = next((name for name in EMBEDDINGS if name in stored), None)
    if head.weight is not embedding.weight or own is None or "lm_head.weight" not in stored:
        return
    n = len(head.weight)
    if not torch.equal(stored[own](0, n), stored["lm_head.weight"](0, n)):
        head.weight = nn.Parameter(torch.empty_like(embedding.weight), requires_grad=False)


def _fill(model: nn.Module, stored: Mapping[str, Rows], backbone: str) -> None:
    """Copy this rank's rows of every stored tensor into the model."""
    names: dict[nn.Parameter, list[str]] = {}  # tied weights are stored under one of their names
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    lacking = [own[0] for own in names.values() if not any(name in stored for name in own)]
    if lacking:
        some = ", ".join(sorted(lacking)[:3])
        raise ValueError(f"model.backbone: {backbone!r} lacks {len(lacking)} tensors ({some} …)")
    with torch.no_grad():
        for parameter, own in names.items():
            name = next(name for name in own if name in stored)
            part = local_shard(parameter)
            start, stop = _rows_of(parameter)
            rows = stored[name](start, stop)
            if rows.shape != part.shape:
                shape = "×".join(map(str, parameter.shape))
                raise ValueError(
                    f"model.backbone: {name} of {backbone!r} does not have the shape {shape} given by its config.json"
                )
            part.copy_(rows)


def _rows_of(parameter: Tensor) -> tuple[int, int]:
    """Range of rows of a parameter that this rank holds: FSDP splits them as `torch.chunk` does."""
    n = len(parameter)
    if not isinstance(parameter, DTensor):
        return 0, n
    size = -(-n // parameter.device_mesh.size())
    start = min(parameter.device_mesh.get_local_rank() * size, n)
    return start, min(start + size, n)
