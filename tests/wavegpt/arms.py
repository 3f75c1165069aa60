"""Small arms that the tests share: every preset, and every form of attention that has a reason to differ."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from wavegpt import PRESETS, AttentionConfig, EmbeddingConfig, WaveConfig, WaveGPT, preset

V, CONTEXT = 30, 16
SMALL: dict[str, Any] = {"vocab_size": V, "d_model": 16, "layers": 2, "heads": 2, "context": CONTEXT}


def _attentions() -> Iterator[tuple[str, AttentionConfig]]:
    for phase in ("fixed", "evolved", "integrated", "source", "none"):
        for normalise in ("softmax", "sum", "energy"):
            yield f"{phase}-{normalise}", AttentionConfig(phase=phase, normalise=normalise)
    for terms in ("cross", "difference"):
        yield terms, AttentionConfig(terms=terms)
    for impl, normalise in (("naive", "softmax"), ("matmul", "softmax"), ("naive", "sum"), ("matmul", "sum")):
        yield f"{impl}-{normalise}", AttentionConfig(impl=impl, normalise=normalise)
    yield "shared", AttentionConfig(projections="shared")
    for kind in ("rope", "nope", "cosine"):
        yield kind, AttentionConfig(kind=kind)
    yield "locality", AttentionConfig(kind="rope", locality=True)
    for kernel, where, normalise in (
        ("identity", "score", "sqrt_t"), ("identity", "feature", "sqrt_t"), ("power_p", "score", "sum"),
        ("power_p", "feature", "sum"), ("exp", "feature", "sum"),
    ):  # fmt: skip
        yield f"{kernel}-{where}", AttentionConfig(kind="pure_wave", kernel=kernel, where=where, normalise=normalise)
    yield "pure-integrated", AttentionConfig(kind="pure_wave", where="feature", phase="integrated")
    yield "pure-evolved", AttentionConfig(kind="pure_wave", where="score", phase="evolved", sin_only=True)


ATTENTIONS = dict(_attentions())


def small(config: WaveConfig, **changes: Any) -> WaveConfig:
    """An arm in these tests' sizes."""
    embedding = config.embedding
    if embedding.kind == "wave":
        embedding = replace(embedding, waves=6, harmonics=3)
    return replace(config, **SMALL, embedding=embedding, **changes)


def model_of(config: WaveConfig, dtype: torch.dtype = torch.float64, spread: float = 0.1) -> WaveGPT:
    """In eval mode; parameters are moved away from their start, so that no term is 0."""
    torch.manual_seed(1)
    model = WaveGPT(config, torch.randperm(V)).to(dtype).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p), alpha=spread)
    return model


def some_ids(rows: int = 2, length: int = 12) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(2))


ARMS: dict[str, WaveConfig] = {
    **{name: small(preset(name)) for name in PRESETS},
    **{name: small(WaveConfig(attention=attention)) for name, attention in ATTENTIONS.items()},
    "tied": small(WaveConfig(tie_head=True)),
    "tied-table": small(WaveConfig(tie_head=True, head_bias=True, embedding=EmbeddingConfig(kind="table"))),
    "normed": small(WaveConfig(tie_head=True, embedding=EmbeddingConfig(kind="table", normed=True))),
    "factorised": small(WaveConfig(embedding=EmbeddingConfig(kind="factorised"), norm="rms")),
    "positions": small(WaveConfig(embedding=EmbeddingConfig(position="phase"))),
    "learned": small(WaveConfig(embedding=EmbeddingConfig(mass="learned"))),
}
