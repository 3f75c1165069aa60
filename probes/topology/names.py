"""Kinds of matrices by their names alone, for families that nothing else is known of."""

import re
from types import SimpleNamespace

from modulant.backbones.families import Shape
from probes.topology.layout import Block, Layout, Stored, kind_beside

# Of a matrix in a block, by the end of its path; the first that fits.
_KINDS = (
    ("mlp_gate", r"(gate_proj|wi_0|w1)"),
    ("mlp_up", r"(up_proj|fc1|wi_1|wi|w3|lin1|linear1|intermediate\.dense|dense_h_to_4h)"),
    (
        "mlp_down",
        r"(down_proj|fc2|w2|lin2|linear2|(DenseReluDense|mlp|expert_\d+)\.wo|dense_4h_to_h|(?<!attention\.)output\.dense)",
    ),
    ("q", r"(q_proj|q_lin|query|to_q|wq|q)"),
    ("k", r"(k_proj|k_lin|key|to_k|wk|k)"),
    ("v", r"(v_proj|v_lin|value|to_v|wv|v)"),
    ("o", r"(o_proj|out_proj|out_lin|attention\.output\.dense|to_out\.0|wo|o)"),
)
_CROSS = re.compile(r"encoder_attn|cross_?attn|cross_?attention|EncDecAttention", re.IGNORECASE)
_PLACE = re.compile(r"^(.*?)\.?(\d+)\.(.+)\.weight$")
_EMBEDDINGS = re.compile(
    r"(^|\.)(shared|embed_tokens|word_embeddings|wte|token_embedding|embed_in|embeddings)\.weight$"
)


def layout_by_names(shapes: dict[str, tuple[int, ...]]) -> Layout:
    """Everything that the files hold, kinds by names; matrices are taken as (out, in).

    Args:
        shapes: of the tensors, by name.

    Returns:
        A layout whose blocks have no heads and no norms; matrices of no known kind are tables of the kind ``other``.
    """
    kinds: dict[str, str] = {}
    places: dict[tuple[str, int], dict[str, list[str]]] = {}
    for name in sorted(shapes, key=_natural):
        found = _PLACE.match(name)
        kind = _in_a_block(found[3]) if found is not None and len(shapes[name]) == 2 else None
        if found is None or kind is None:
            kind = "embedding" if _EMBEDDINGS.search(name) else kind_beside(name, {}, set())
            kinds[name] = "other" if kind == "position_bias" else kind  # of which buckets is not known
        else:
            places.setdefault((_location(found[1]), int(found[2])), {}).setdefault(kind, []).append(name)
    blocks: dict[tuple[str, int], list[Stored]] = {}
    for place, here in places.items():
        for kind, names in here.items():
            kinds |= dict.fromkeys(names, kind if len(names) == 1 else "other")  # several: experts
            blocks.setdefault(place, []).extend(Stored(name, (kind,), name) for name in names if len(names) == 1)
    unknown = SimpleNamespace(model_type=None)  # whose matrices begin at an unknown scale
    made = tuple(
        Block(location, layer, Shape(0, 0, 0, 1, 1, 1, None), tuple(stored), by_name=True)
        for (location, layer), stored in sorted(blocks.items(), key=lambda item: item[0])
    )
    tables = tuple(
        Stored(name, (kind,), name)
        for name, kind in kinds.items()
        if kind in ("embedding", "lm_head", "position", "other") and len(shapes[name]) == 2 and min(shapes[name]) > 1
    )
    configs = {location: unknown for location, _ in blocks} or {"": unknown}
    return Layout(made, tables, kinds, {name: name for name in shapes}, configs)


def _in_a_block(path: str) -> str | None:
    for kind, ends in _KINDS:
        if re.search(rf"(^|[._]){ends}$", path):
            return kind if kind.startswith("mlp") else f"{'cross' if _CROSS.search(path) else 'self'}_{kind}"
    return None


def _location(path: str) -> str:
    """A stack by what precedes the number of the block."""
    for location in ("encoder", "decoder", "vision", "text"):
        if location in path.lower():
            return location
    return "stack"


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers in a name sort as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
