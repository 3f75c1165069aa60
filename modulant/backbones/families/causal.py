"""Causal language models: one stack, which `generate` extends token by token, with a KV cache."""

from collections.abc import Mapping

from modulant.backbones.families.base import Family

_LIKE_LLAMA = {
    **{kind: (f"self_attn.{kind}_proj",) for kind in "qkvo"},
    "wi": ("mlp.gate_proj", "mlp.up_proj"),
    "wo": ("mlp.down_proj",),
}
_PHI = {
    **{kind: (f"self_attn.{kind}_proj",) for kind in "qkv"},
    "o": ("self_attn.dense",),
    "wi": ("mlp.fc1",),
    "wo": ("mlp.fc2",),
}
_PHI3 = {
    "qkv": ("self_attn.qkv_proj",),
    "o": ("self_attn.o_proj",),
    "wi": ("mlp.gate_up_proj",),
    "wo": ("mlp.down_proj",),
}


def _like_llama(
    model_type: str,
    name: str,
    stack: str = "Model",
    final_norm: str = "norm",
    matrices: Mapping[str, tuple[str, ...]] = _LIKE_LLAMA,
) -> Family:
    return Family(
        model_type=model_type,
        side="decoder",
        stack=f"{name}{stack}",
        block=f"{name}DecoderLayer",
        blocks="layers",
        embed="embed_tokens",
        final_norm=final_norm,
        heads=("lm",),
        causal=True,
        matrices=matrices,
    )


CAUSAL: tuple[Family, ...] = (
    Family(
        model_type="gpt2",
        side="decoder",
        stack="GPT2Model",
        block="GPT2Block",
        blocks="h",
        embed="wte",
        final_norm="ln_f",
        heads=("lm",),
        causal=True,
        matrices={"qkv": ("attn.c_attn",), "o": ("attn.c_proj",), "wi": ("mlp.c_fc",), "wo": ("mlp.c_proj",)},
    ),
    Family(
        model_type="gpt_neox",
        side="decoder",
        stack="GPTNeoXModel",
        block="GPTNeoXLayer",
        blocks="layers",
        embed="embed_in",
        final_norm="final_layer_norm",
        heads=("lm",),
        causal=True,
        matrices={
            "qkv": ("attention.query_key_value",),
            "o": ("attention.dense",),
            "wi": ("mlp.dense_h_to_4h",),
            "wo": ("mlp.dense_4h_to_h",),
        },
    ),
    _like_llama("llama", "Llama"),
    _like_llama("qwen2", "Qwen2"),
    _like_llama("qwen3", "Qwen3"),
    _like_llama("mistral", "Mistral"),
    _like_llama("gemma", "Gemma"),
    _like_llama("gemma2", "Gemma2"),
    _like_llama("gemma3_text", "Gemma3", stack="TextModel"),
    _like_llama("phi", "Phi", final_norm="final_layernorm", matrices=_PHI),
    _like_llama("phi3", "Phi3", matrices=_PHI3),
)
