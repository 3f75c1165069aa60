"""What sees, to be measured: ViT, DINOv2, and CLIP with its tower of text.

The final norm of CLIP's vision tower acts on its first token alone; its ``last_hidden_state`` is before it.
"""

from modulant.backbones.families.base import Family

IMAGES: tuple[Family, ...] = (
    Family(
        model_type="vit",
        side="encoder",
        stack="ViTModel",
        block="ViTLayer",
        blocks="layers",
        embed="embeddings.patch_embeddings",
        final_norm="layernorm",
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
        reads="pixel_values",
        positions=None,
    ),
)
