"""Prepare the attention mask of a batch without synchronising with the device.

transformers builds SDPA's mask from the token mask (B, S), and omits it if there is no padding. To find out, it reads a
value from the device, once for the encoder and once for cross-attention: each time the host waits for all launched
kernels. Whether a batch has padding is known on the host when the batch is made.
"""

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor


def prepared_mask(
    config: Any, attention_mask: Int[Tensor, "batch tokens"], padded: bool | None
) -> Int[Tensor, "batch tokens"] | Bool[Tensor, "batch 1 1 tokens"] | None:
    """Return an ``attention_mask`` for an encoder that gives bit-identical results without synchronising.

    Some are left as they are, and synchronise: those of attention other than SDPA, and of a ModernBERT's batch with
    padding, whose blocks take two kinds of masks.

    Args:
        config: of a T5, or of an encoder.
        attention_mask: 1 at a token, 0 at padding.
        padded: whether there is any padding; None if unknown: then the mask is returned as it is.
    """
    # Other attention implementations take other masks, which transformers builds.
    if padded is None or config._attn_implementation != "sdpa":
        return attention_mask
    if not padded:
        return None
    local = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return attention_mask if local else attention_mask[:, None, None].bool()
