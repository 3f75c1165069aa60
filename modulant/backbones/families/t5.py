"""T5, mT5 and UMT5: two stacks of one class, which share their embeddings."""

from modulant.backbones.families.base import Family

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
    )
    for name in ("T5", "MT5", "UMT5")
    for side in ("encoder", "decoder")
)
