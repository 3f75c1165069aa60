"""Tiny models of every known family, with seeded random weights: three blocks, width 32, a vocabulary of 97."""

from typing import Any

import torch
import transformers
from torch import Tensor

_IDS: dict[str, Any] = {"vocab_size": 97, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 96,
}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4, "decoder_start_token_id": 0}
_SHARED_KEYS = {"num_key_value_heads": 2}
_IMAGE = {**_SIZES, "image_size": 16, "patch_size": 4}
_BERT_IDS = {"cls_token_id": 2, "sep_token_id": 3}
_GPT2 = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 96}
_DISTIL = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 96}

# model type → stem of its classes, and what its configuration gets.
SEQ2SEQ: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5", _T5),
    "mt5": ("MT5", _T5),
    "umt5": ("UMT5", _T5),
}
MASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", _SIZES),
    "roberta": ("Roberta", _SIZES),
    "distilbert": ("DistilBert", _DISTIL),
    "mpnet": ("MPNet", _SIZES),
    "modernbert": ("ModernBert", {**_SIZES, **_BERT_IDS, "local_attention": 16}),
}
CAUSAL: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", _GPT2),
    "gpt_neox": ("GPTNeoX", _SIZES),
    "llama": ("Llama", {**_SIZES, **_SHARED_KEYS}),
    "qwen2": ("Qwen2", {**_SIZES, **_SHARED_KEYS}),
    "qwen3": ("Qwen3", {**_SIZES, **_SHARED_KEYS, "head_dim": 8}),
    "mistral": ("Mistral", {**_SIZES, **_SHARED_KEYS, "sliding_window": 16}),
    "gemma": ("Gemma", {**_SIZES, "num_key_value_heads": 1, "head_dim": 16}),
    "gemma2": ("Gemma2", {**_SIZES, **_SHARED_KEYS, "head_dim": 8, "sliding_window": 16}),
    "gemma3_text": ("Gemma3", {**_SIZES, **_SHARED_KEYS, "head_dim": 8, "sliding_window": 16}),
    "phi": ("Phi", _SIZES),
    "phi3": ("Phi3", {**_SIZES, **_SHARED_KEYS, "sliding_window": 16}),
}
IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViT", _IMAGE),
    "dinov2": ("Dinov2", _IMAGE),
    "clip_text_model": ("CLIPText", _SIZES),
    "clip_vision_model": ("CLIPVision", _IMAGE),
}
TEXT = {**SEQ2SEQ, **MASKED, **CAUSAL}
ALL = {**TEXT, **IMAGES}


def config_of(model_type: str, **more: Any) -> Any:
    stem, sizes = ALL[model_type]
    name = "Gemma3TextConfig" if model_type == "gemma3_text" else f"{stem}Config"
    ids = {} if "image_size" in sizes else _IDS
    return getattr(transformers, name)(**{**ids, **sizes, **more})


def build(model_type: str, head: bool = True, **more: Any) -> Any:
    """A frozen tiny model, with the head of its family or bare."""
    torch.manual_seed(3)
    stem = ALL[model_type][0]
    if model_type in SEQ2SEQ and head:
        name = f"{stem}ForConditionalGeneration"
    elif model_type in MASKED and head:
        name = f"{stem}ForMaskedLM"
    elif model_type in CAUSAL and head:
        name = "GPT2LMHeadModel" if model_type == "gpt2" else f"{stem}ForCausalLM"
    else:
        name = "Gemma3TextModel" if model_type == "gemma3_text" else f"{stem}Model"
    model = getattr(transformers, name)(config_of(model_type, **more))
    with torch.no_grad():  # norms and biases start alike everywhere, where a wrong path would not be seen
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.requires_grad_(False).eval()


def inputs_for(model_type: str, padding: str = "right", length: int = 24) -> dict[str, Tensor]:
    """Two rows of token ids, the second with padding on one side; two images for what sees."""
    generator = torch.Generator().manual_seed(7)
    if "image_size" in ALL[model_type][1]:
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    ids = torch.randint(4, 97, (2, length), generator=generator)
    mask = torch.ones_like(ids)
    blank = slice(length - 8, None) if padding == "right" else slice(None, 8)
    ids[1, blank], mask[1, blank] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def stack_in(model_type: str, model: Any) -> Any:
    """The stack, by hand."""
    if model_type in SEQ2SEQ:
        return model.encoder
    prefix = {"distilbert": "distilbert", "gpt2": "transformer", "gpt_neox": "gpt_neox"}.get(model_type)
    names = (prefix, model_type, "model")
    return next((inner for name in names if name and (inner := getattr(model, name, None)) is not None), model)
