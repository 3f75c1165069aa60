"""The attention mask of a batch, ready before transformers asks a device whether it masks anything.

transformers builds the mask that SDPA takes from the tokens' mask (B, S), and leaves it away where all tokens are real.
To see whether they are it reads a value from the device, once for the encoder and once for the decoder's view of it:
each time the host waits until all that it has launched is done. Who made the batch knows already.
"""

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor


def prepared_mask(
    config: Any, attention_mask: Int[Tensor, "batch tokens"], padded: bool | None
) -> Int[Tensor, "batch tokens"] | Bool[Tensor, "batch 1 1 tokens"] | None:
    """What a T5 takes for ``attention_mask`` with the same result, to the bit, and without a look at the device.

    Args:
        config: the T5's.
        attention_mask: 1 at a token, 0 at padding.
        padded: whether there is any padding; None where nobody knows: then transformers has to look.
    """
    # The other kinds of attention take other masks; transformers makes those.
    if padded is None or config._attn_implementation != "sdpa":
        return attention_mask
    return attention_mask[:, None, None].bool() if padded else None
