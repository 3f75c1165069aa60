"""What sees, to be measured: ViT, DINOv2, and CLIP with its tower of text.

The final norm of CLIP's vision tower acts on its first token alone; its ``last_hidden_state`` is before it.
"""

from modulant.backbones.families.base import Family

_LIKE_VIT = {
    **{kind: (f"attention.{kind}_proj",) for kind in "qkvo"},
    "wi": ("mlp.fc1",),
    "wo": ("mlp.fc2",),
}
# DINOv2's giant is gated.
_GATED = {"wi": ("mlp.fc1", "mlp.gate_proj", "mlp.up_proj"), "wo": ("mlp.fc2", "mlp.down_proj")}
_CLIP = {
    **{kind: (f"self_attn.{kind}_proj",) for kind in "qkv"},
    "o": ("self_attn.out_proj",),
    "wi": ("mlp.fc1",),
    "wo": ("mlp.fc2",),
}

IMAGES: tuple[Family, ...] = (
    Family(
        model_type="vit",
        side="encoder",
        stack="ViTModel",
        block="ViTLayer",
        blocks="layers",
        embed="embeddings.patch_embeddings",
        final_norm="layernorm",
        matrices=_LIKE_VIT,
        reads="pixel_values",
        positions=None,
        pooler=True,
    ),
    Family(
        model_type="dinov2",
        side="encoder",
        stack="Dinov2Model",
        block="Dinov2Layer",
        blocks="encoder.layer",
        embed="embeddings.patch_embeddings",
        final_norm="layernorm",
        matrices=_LIKE_VIT | _GATED,
        reads="pixel_values",
        positions=None,
    ),
    Family(
        model_type="clip_text_model",
        side="text",
        stack="CLIPTextModel",
        block="CLIPEncoderLayer",
        blocks="encoder.layers",
        embed="embeddings.token_embedding",
        final_norm="final_layer_norm",
        matrices=_CLIP,
        causal=True,
    ),
    Family(
        model_type="clip_vision_model",
        side="vision",
        stack="CLIPVisionModel",
        block="CLIPEncoderLayer",
        blocks="encoder.layers",
        embed="embeddings.patch_embedding",
        final_norm=None,
        matrices=_CLIP,
        reads="pixel_values",
        positions=None,
    ),
)
