"""Sizes of the T5s that are published, so that what one takes can be said without a network: of their config.json."""

from collections.abc import Mapping
from typing import Any

_ALL = {"vocab_size": 32128, "decoder_start_token_id": 0}


def _t5(d_model: int, d_ff: int, d_kv: int, num_heads: int, num_layers: int) -> dict[str, Any]:
    sizes = {"d_model": d_model, "d_ff": d_ff, "d_kv": d_kv, "num_heads": num_heads, "num_layers": num_layers}
    return _ALL | sizes | {"feed_forward_proj": "relu"}


def _v1_1(d_model: int, d_ff: int, num_heads: int, num_layers: int) -> dict[str, Any]:
    """A gated feed-forward layer, and an output head of its own."""
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return _t5(d_model, d_ff, 64, num_heads, num_layers) | gated


_V1_1 = {
    "small": _v1_1(512, 1024, 6, 8),
    "base": _v1_1(768, 2048, 12, 12),
    "large": _v1_1(1024, 2816, 16, 24),
    "xl": _v1_1(2048, 5120, 32, 24),
    "xxl": _v1_1(4096, 10240, 64, 24),
}

# Hub id → arguments of a T5Config
PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "google-t5/t5-small": _t5(512, 2048, 64, 8, 6),
    "google-t5/t5-base": _t5(768, 3072, 64, 12, 12),
    "google-t5/t5-large": _t5(1024, 4096, 64, 16, 24),
    "google-t5/t5-3b": _t5(1024, 16384, 128, 32, 24),
    "google-t5/t5-11b": _t5(1024, 65536, 128, 128, 24),
    **{f"google/t5-v1_1-{size}": sizes for size, sizes in _V1_1.items()},
    **{f"google/flan-t5-{size}": sizes for size, sizes in _V1_1.items()},
}


def published(name: str) -> str | None:
    """The hub id of a published T5, which may be named without its owner.

    >>> published("t5-small"), published("google/t5-v1_1-xxl"), published("bert")
    ('google-t5/t5-small', 'google/t5-v1_1-xxl', None)
    """
    return next((full for full in PUBLISHED if name in (full, full.partition("/")[2])), None)
