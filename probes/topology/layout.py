"""Where the matrices of a model are in its files, which is known without its weights.

The model is built on the meta device, where tensors have shapes and no memory. Names in files become names of modules
by transformers' own renaming, so that files of any version of a family are read.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from modulant.backbones.families import FAMILIES, Parts, Shape, family_of, parts_of
from modulant.backbones.families.base import at_path, is_transposed, path_to, sides
from modulant.backbones.opening import of_random_weights

# Norms before attention and before the MLP, by their places in a block; a block without them ends with its norms.
_BEFORE_SELF = (
    "layer.0.layer_norm",
    "ln_1",
    "input_layernorm",
    "attn_norm",
    "layernorm_before",
    "norm1",
    "layer_norm1",
)
_BEFORE_CROSS = ("layer.1.layer_norm",)
_BEFORE_MLP = (
    "ln_2",
    "pre_feedforward_layernorm",
    "post_attention_layernorm",
    "mlp_norm",
    "layernorm_after",
    "norm2",
    "layer_norm2",
)
_OF_QUERIES, _OF_KEYS = ("q_norm", "q_layernorm"), ("k_norm", "k_layernorm")
LM_HEADS = re.compile(r"(^|\.)(lm_head|embed_out|vocab_projector|decoder)\.weight$")
_FUSED = {"qkv": ("q", "k", "v"), "gate_up": ("gate", "up")}


@dataclass(frozen=True)
class Norm:
    """A norm whose gain is folded into what reads it.

    Attributes:
        gain: name of its gain in the files; None where they lack it.
        centred: whether it subtracts the mean, as LayerNorm does.
        offset: added to the stored gain; 1 in Gemma.
    """

    gain: str | None
    centred: bool = False
    offset: float = 0.0

    def fold(self, matrix: Tensor, gain: Tensor) -> Tensor:
        """W of the normalised input becomes W·diag(gain)·(I − 11ᵀ/D) of the input, but for its length; last axis."""
        matrix = matrix * (gain + self.offset)
        return matrix - matrix.mean(-1, keepdim=True) if self.centred else matrix


@dataclass(frozen=True)
class Stored:
    """One tensor of a block's matrices.

    Attributes:
        name: in the files; None where they lack it.
        kinds: of its matrices, in their order: one, or several that are fused.
        module: path of its module.
        transposed: whether it is stored as (in, out).
        interleaved: whether its rows are fused head by head.
    """

    name: str | None
    kinds: tuple[str, ...]
    module: str
    transposed: bool = False
    interleaved: bool = False

    def split(self, tensor: Tensor, shape: Shape) -> dict[str, Tensor]:
        """Kind → matrix (out, in). A convolution over patches is (out, everything else)."""
        matrix = (tensor.mT if self.transposed else tensor).flatten(1)
        if len(self.kinds) == 1:
            return {self.kinds[0]: matrix}
        if self.interleaved:
            parts = matrix.view(shape.n_heads, 3, shape.head_width, -1).unbind(1)
            return {kind: part.flatten(0, 1) for kind, part in zip(self.kinds, parts, strict=True)}
        if len(self.kinds) == 3:
            shared = shape.n_kv_heads * shape.head_width
            widths = [len(matrix) - 2 * shared, shared, shared]
        else:
            widths = [len(matrix) // 2] * 2
        return dict(zip(self.kinds, matrix.split(widths), strict=True))


@dataclass(frozen=True)
class Block:
    """A block: its matrices, and the norms before them (`self`, `cross`, `cross_keys`, `mlp`, `q`, `k`)."""

    location: str
    layer: int
    shape: Shape
    tensors: tuple[Stored, ...]
    norms: Mapping[str, Norm] = field(default_factory=dict)
    by_name: bool = False  # of no known family: which norm is where is not known either

    @property
    def has_gains(self) -> bool:
        """Whether the files have the gains of its norms; a missing shard may hold them."""
        return not self.by_name and all(norm.gain is not None for norm in self.norms.values())


@dataclass(frozen=True)
class Layout:
    """Everything that the files hold.

    Attributes:
        blocks: of all stacks.
        tables: matrices beside them: embeddings, heads over the vocabulary, embeddings of patches.
        kinds: name in the files → kind, for every tensor; ``other`` where the layout does not know it.
        modules: name in the files → name in the model.
        configs: location → configuration and model type with the sizes.
    """

    blocks: tuple[Block, ...]
    tables: tuple[Stored, ...]
    kinds: Mapping[str, str]
    modules: Mapping[str, str]
    configs: Mapping[str, Any]


def layout_of(name: str, config: Any, stored: Iterable[str]) -> Layout:
    """Find the matrices of a model of a known family in its files.

    Args:
        name: of the model, for messages.
        config: of transformers.
        stored: names of all tensors in the files.
    """
    with torch.device("meta"):
        model = of_random_weights(name, config).model
    modules, fused = _renamed(model, stored)
    places = {module: file for file, module in modules.items()}
    blocks: list[Block] = []
    kinds: dict[str, str] = {}
    configs = {}
    tables: dict[str, str] = {}
    for parts in _stacks(model):
        location = parts.family.side
        configs[location] = family_of(config, location)[1]
        for layer, block in enumerate(parts.blocks):
            blocks.append(_block(model, parts, layer, block, places, fused))
            kinds |= {t.name: _fused_name(t.kinds) for t in blocks[-1].tensors if t.name is not None}
        embed = at_path(parts.stack, parts.family.embed)
        kind = "embedding" if parts.family.reads == "input_ids" else "patch"
        for path, inner in embed.named_modules():
            if isinstance(inner, (nn.Embedding, nn.Conv2d)):
                tables[".".join(filter(None, (path_to(model, embed), path, "weight")))] = kind
    norms = {path for path, inner in model.named_modules() if "norm" in type(inner).__name__.lower()}
    for file, module in modules.items():
        if file not in kinds:
            kinds[file] = kind_beside(module, tables, norms)
    beside = tuple(
        Stored(file, (kind,), modules[file])
        for file, kind in kinds.items()
        if kind in ("embedding", "lm_head", "patch")
    )
    return Layout(tuple(blocks), beside, kinds, modules, configs)


def _renamed(model: Any, stored: Iterable[str]) -> tuple[dict[str, str], set[str]]:
    """Name in the files → name in the model; and those in the files that the model has in parts, by the first part."""
    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    state = model.state_dict()
    renamed = {
        file: rename_source_key(file, renamings, converters, model.base_model_prefix, state) for file in sorted(stored)
    }
    return {file: module for file, (module, _) in renamed.items()}, {
        file for file, (_, part) in renamed.items() if part
    }


def _stacks(model: nn.Module) -> list[Parts]:
    """All stacks that are of a known family: both of a T5 and of a CLIP."""
    found = []
    for side in dict.fromkeys(family.side for family in FAMILIES):
        try:
            found.append(parts_of(model, side))
        except ValueError:  # not one of this model's sides, or a T5 without its decoder
            continue
    return found


def _block(
    model: nn.Module, parts: Parts, layer: int, block: nn.Module, places: Mapping[str, str], split: set[str]
) -> Block:
    here = path_to(model, block)
    tensors: list[Stored] = []
    matrices = parts.family.matrices_of(block)
    hidden = max(sides(matrix)[0] for matrix in matrices["wo"].values())
    for kind, found in matrices.items():
        for path, matrix in found.items():
            module = f"{here}.{path}.weight"
            fused = kind == "wi" and (sides(matrix)[1] == 2 * hidden or places.get(module) in split)
            if path.endswith("up_proj") and tensors[-1].kinds == ("mlp_gate", "mlp_up"):
                continue  # DINOv2's giant: two in the model, one in its files
            tensors.append(
                Stored(
                    places.get(module),
                    _kinds("gate_up" if fused else kind, path, len(found)),
                    module,
                    is_transposed(matrix),
                    interleaved=kind == "qkv" and parts.family.model_type == "gpt_neox",
                )
            )
    norms = {}
    attention = next(path for path in parts.family.matrices.get("q", parts.family.matrices.get("qkv", ())))
    inner = here + "." + attention.rpartition(".")[0]
    mlp: tuple[str, ...] = _BEFORE_MLP
    if parts.family.model_type in ("t5", "mt5", "umt5"):
        mlp = (f"layer.{2 if parts.family.side == 'decoder' else 1}.layer_norm",)
        if parts.family.side == "decoder":
            norms["cross"] = _norm(model, here, _BEFORE_CROSS, places)
            norms["cross_keys"] = _norm(model, "encoder", ("final_layer_norm",), places)
    elif parts.family.model_type == "phi":
        mlp = ("input_layernorm",)  # one norm for both
    norms |= {
        "self": _norm(model, here, _BEFORE_SELF, places),
        "mlp": _norm(model, here, mlp, places),
        "q": _norm(model, inner, _OF_QUERIES, places),
        "k": _norm(model, inner, _OF_KEYS, places),
    }
    found_norms = {key: norm for key, norm in norms.items() if norm is not None}
    return Block(parts.family.side, layer, parts.shape, tuple(tensors), found_norms)


def _norm(model: nn.Module, here: str, paths: Iterable[str], places: Mapping[str, str]) -> Norm | None:
    for path in paths:
        module = at_path(model, f"{here}.{path}")
        if module is not None and "norm" in type(module).__name__.lower():
            return Norm(
                places.get(f"{here}.{path}.weight"),
                centred=isinstance(module, nn.LayerNorm),
                offset=float(type(module).__name__.startswith("Gemma")),
            )
    return None


def _kinds(kind: str, path: str, n_paths: int) -> tuple[str, ...]:
    """Kinds of the matrices in a tensor, by `Family.matrices`' kind and its path in a block."""
    if kind == "gate_up":
        return "mlp_gate", "mlp_up"
    if kind == "wi":
        gate = n_paths > 1 and path.endswith(("wi_0", "gate_proj"))
        return ("mlp_gate" if gate else "mlp_up",)
    if kind == "wo":
        return ("mlp_down",)
    return tuple(part if part.startswith("cross_") else f"self_{part}" for part in _FUSED.get(kind, (kind,)))


def _fused_name(kinds: tuple[str, ...]) -> str:
    return {3: "qkv", 2: "gate_up"}.get(len(kinds), kinds[0])


def kind_beside(module: str, tables: Mapping[str, str], norms: set[str]) -> str:
    """Kind of a tensor that is none of a block's matrices, by its name in the model."""
    if module in tables:
        return tables[module]
    if module.endswith("relative_attention_bias.weight"):
        return "position_bias"
    if module.rpartition(".")[0] in norms or re.search(r"norm[\w]*\.(weight|bias)$", module, re.IGNORECASE):
        return "norm"
    if module.endswith("bias"):
        return "bias"
    if LM_HEADS.search(module):
        return "lm_head"
    if module.endswith(("shared.weight", "embed_tokens.weight")):  # the same table under another name
        return "embedding"
    if re.search(r"position|class_embedding|cls_token|token_type|mask_token|\bwpe\b", module):
        return "position"
    return "other"
