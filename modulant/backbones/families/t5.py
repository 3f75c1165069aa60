"""T5, mT5 and UMT5: two stacks of one class, which share their embeddings."""

from modulant.backbones.families.base import Family

_ATTENTION = {kind: (f"layer.0.SelfAttention.{kind}",) for kind in "qkvo"}
_CROSS = {f"cross_{kind}": (f"layer.1.EncDecAttention.{kind}",) for kind in "qkvo"}


def _feed_forward(layer: int) -> dict[str, tuple[str, ...]]:
    wi = tuple(f"layer.{layer}.DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1"))  # the latter two if gated
    return {"wi": wi, "wo": (f"layer.{layer}.DenseReluDense.wo",)}


T5S: tuple[Family, ...] = tuple(
    Family(
        model_type=name.lower(),
        side=side,
        stack=f"{name}Stack",
        block=f"{name}Block",
        blocks="block",
        embed="embed_tokens",
        final_norm="final_layer_norm",
        heads=("seq2seq",),
        causal=side == "decoder",
        positions=None,  # relative ones
        matrices=_ATTENTION | (_CROSS | _feed_forward(2) if side == "decoder" else _feed_forward(1)),
    )
    for name in ("T5", "MT5", "UMT5")
    for side in ("encoder", "decoder")
)
