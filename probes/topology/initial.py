"""The scale at which a family initialises its matrices, by its configuration: what a weight's size is compared with."""

import math
from typing import Any

from modulant.backbones.families import Shape

_T5S = ("t5", "mt5", "umt5")
_CLIPS = ("clip_text_model", "clip_vision_model")


def initial_sd(config: Any, kind: str, shape: Shape) -> float | None:
    r"""Standard deviation of a matrix when it was initialised; None where the configuration does not say.

    A T5 has no 1/√d in its scores and initialises its queries smaller by that, with (D·d)^−½; keys, values and the
    MLP's inputs have D^−½, outputs the −½th power of their own width, and embeddings 1.

    Args:
        config: with the sizes of the stack.
        kind: ``self_q``, …, ``mlp_down``, ``embedding``.
        shape: of the stack.
    """
    part = kind.partition("_")[2] or kind
    if config.model_type in _T5S:
        fans = {
            "q": shape.d_model * shape.head_width,
            "k": shape.d_model,
            "v": shape.d_model,
            "o": shape.n_heads * shape.head_width,
            "gate": shape.d_model,
            "up": shape.d_model,
            "down": config.d_ff,
            "embedding": 1,
        }
        return float(config.initializer_factor * fans[part] ** -0.5) if part in fans else None
    if config.model_type in _CLIPS:
        inner = shape.d_model**-0.5 * (2 * shape.n_layers) ** -0.5
        sds = {"q": inner, "k": inner, "v": inner, "o": shape.d_model**-0.5, "down": inner}
        sds |= {"up": (2 * shape.d_model) ** -0.5, "embedding": 0.02, "patch": config.initializer_range}
        return float(config.initializer_factor * sds[part]) if part in sds else None
    scale = getattr(config, "initializer_range", None)
    if scale is None or part in ("head", "patch"):
        return None
    if part in {"gpt2": ("o", "down"), "modernbert": ("o", "down")}.get(config.model_type, ()):
        scale *= (2 * shape.n_layers) ** -0.5
    if config.model_type == "modernbert":
        scale *= _sd_of_truncated(config.initializer_cutoff_factor or 3.0)
    return float(scale)


def _sd_of_truncated(limit: float) -> float:
    """Standard deviation of a standard normal variable that is drawn again outside of ± limit.

    >>> round(_sd_of_truncated(2.0), 4)
    0.8796
    """
    density = math.exp(-limit * limit / 2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * limit * density / math.erf(limit / math.sqrt(2)))
