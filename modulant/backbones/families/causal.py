"""Causal language models: one stack, which `generate` extends token by token, with a KV cache."""

from modulant.backbones.families.base import Family


def _like_llama(model_type: str, name: str, stack: str = "Model", final_norm: str = "norm") -> Family:
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
    ),
    _like_llama("llama", "Llama"),
    _like_llama("qwen2", "Qwen2"),
    _like_llama("qwen3", "Qwen3"),
    _like_llama("mistral", "Mistral"),
    _like_llama("gemma", "Gemma"),
    _like_llama("gemma2", "Gemma2"),
    _like_llama("gemma3_text", "Gemma3", stack="TextModel"),
    _like_llama("phi", "Phi", final_norm="final_layernorm"),
    _like_llama("phi3", "Phi3"),
)
