"""Named arms: the careful ones, and the source's as its code computes them (`source/…`). Imports no torch."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from wavegpt.config import (
    AnnealConfig,
    AttentionConfig,
    EmbeddingConfig,
    LossConfig,
    MlpConfig,
    OptimizerConfig,
    ProjectConfig,
    WaveConfig,
)

_PROJECTED = OptimizerConfig(project=ProjectConfig(side="weight", rank=0.25))
_COHERENT = LossConfig(phase=0.01, energy=0.01)


def _baseline() -> WaveConfig:
    return WaveConfig(embedding=EmbeddingConfig(kind="table"), attention=AttentionConfig(kind="rope"))


def _pure_wave(kernel: Any = "elu1", where: Any = "score") -> WaveConfig:
    return WaveConfig(attention=AttentionConfig(kind="pure_wave", kernel=kernel, where=where, normalise="sum"))


def _source(attention: AttentionConfig, loss: LossConfig | None = None, physics: bool = False) -> WaveConfig:
    """The source's model, 384 wide; with its optimizer if `physics`."""
    optimizer = OptimizerConfig(lr=3e-4, weight_decay=0.01)
    if physics:
        project = ProjectConfig(side="weight", rank=None, every=1, weight=0.7)
        optimizer = replace(optimizer, base="sgd", lr_inside=True, damping=0.1, project=project)
    embedding = EmbeddingConfig(
        mass="id", omega_range=None, times="one", harmonic_phase="fundamental", amplitude="fixed", phase_init="uniform",
        position="phase", anneal=AnnealConfig(steps=3000, position=False),
    )  # fmt: skip
    return WaveConfig(
        dropout=0.1, embedding=embedding, attention=attention, mlp=MlpConfig(act="gelu_sin"), residual_scale=False,
        double_ln=True, head_bias=True, loss=loss or LossConfig(), optimizer=optimizer,
    )  # fmt: skip


def _source_interference(**arguments: Any) -> WaveConfig:
    attention = AttentionConfig(
        projections="shared", phase="source", normalise="energy", amp_init=math.log(2), temperature="none"
    )
    return _source(attention, **arguments)


def _source_pure_wave(kernel: Any) -> WaveConfig:
    """Quadratic also where the source says linear: its block does not pass the mode on."""
    attention = AttentionConfig(
        kind="pure_wave", kernel=kernel, where="score", normalise="sqrt_t", phase="evolved", frequency="free",
        sin_only=True, waves=None,
    )  # fmt: skip
    return _source(attention)


_README_LOSS = LossConfig(phase=0.01, energy=0.01, variant="source")  # the harmonic term has no gradient there
PRESETS: Mapping[str, Callable[[], WaveConfig]] = {
    "baseline": _baseline,
    "wave": WaveConfig,
    "rgd_only": lambda: replace(WaveConfig(), optimizer=_PROJECTED),
    "qfe_only": lambda: replace(WaveConfig(), loss=_COHERENT),
    "full_physics": lambda: replace(WaveConfig(), optimizer=_PROJECTED, loss=_COHERENT),
    "pure_wave": _pure_wave,
    "pure_wave_linear": lambda: _pure_wave(where="feature"),
    "pure_wave_sigmoid": lambda: _pure_wave("sigmoid"),
    "pure_wave_exp": lambda: _pure_wave("exp"),
    "source/cosine": lambda: _source(AttentionConfig(kind="cosine", temperature="shared")),
    "source/interference": _source_interference,
    "source/rgd_only": lambda: _source_interference(physics=True),
    "source/qfe_only": lambda: _source_interference(loss=_README_LOSS),
    "source/full_physics": lambda: _source_interference(physics=True, loss=_README_LOSS),
    "source/pure_wave": lambda: _source_pure_wave("elu1"),
    "source/pure_wave_linear": lambda: _source_pure_wave("elu1"),
    "source/pure_wave_sigmoid": lambda: _source_pure_wave("sigmoid"),
    "source/pure_wave_exp": lambda: _source_pure_wave("exp"),
}


def preset(name: str, **changes: Any) -> WaveConfig:
    """The arm of this name, with fields of `WaveConfig` changed.

    Raises:
        ValueError: there is no such preset, or the changed arm cannot be built.

    >>> preset("baseline", vocab_size=256, d_model=64, heads=4).attention.kind
    'rope'
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1, 0)[0]
        raise ValueError(f"{name!r} is no preset; the nearest is {near}, of {', '.join(PRESETS)}")
    return replace(PRESETS[name](), **changes)
