"""Configuration of an arm: the model with its loss and its optimizer. Imports no torch."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from modulant.settings import HalfOpenUnitInterval, PositiveFloat, PositiveInt, checked
from wavegpt.config.attention import AttentionConfig
from wavegpt.config.embedding import EmbeddingConfig
from wavegpt.config.sections import section, set_fields
from wavegpt.config.training import LossConfig, OptimizerConfig


@dataclass(frozen=True)
class MlpConfig:
    """The block's second half.

    Attributes:
        act: gelu, or gelu(h) + 0.1 sin h (the source).
        expansion: its width over d_model; changed a little to match parameters of two arms.
    """

    act: Literal["gelu", "gelu_sin"] = "gelu"
    expansion: PositiveFloat = 4.0

    @checked
    def __post_init__(self) -> None: ...


@dataclass(frozen=True)
class WaveConfig:
    """An arm: a model of `layers` pre-norm blocks, its loss and its optimizer.

    Attributes:
        vocab_size: V; null: from the tokenizer, before a model is built.
        d_model: d.
        layers: L.
        heads: H; a head is h = d / H wide.
        context: T, tokens that it is trained on; keys that a cache holds.
        dropout: of the output of both halves of a block, the same in all arms.
        norm: layer (with a bias) or rms.
        embedding: `EmbeddingConfig`.
        attention: `AttentionConfig`.
        mlp: `MlpConfig`.
        residual_scale: initial output projections are scaled by 1/√(2L).
        double_ln: a second norm before the head (the source).
        head_bias: of the head (the source).
        tie_head: the head is the embedding's table.
        loss: `LossConfig`.
        optimizer: `OptimizerConfig`.
    """

    vocab_size: PositiveInt | None = None
    d_model: PositiveInt = 384
    layers: PositiveInt = 8
    heads: PositiveInt = 8
    context: PositiveInt = 256
    dropout: HalfOpenUnitInterval = 0.0
    norm: Literal["layer", "rms"] = "layer"
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    attention: AttentionConfig = field(default_factory=AttentionConfig)
    mlp: MlpConfig = field(default_factory=MlpConfig)
    residual_scale: bool = True
    double_ln: bool = False
    head_bias: bool = False
    tie_head: bool = False
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    @checked
    def __post_init__(self) -> None:
        for name, kind in SECTIONS.items():
            set_fields(self, **{name: section(kind, getattr(self, name), name)})
        self._check_widths()
        loss, attention, embedding = self.loss, self.attention, self.embedding
        learned = embedding.kind == "wave" and embedding.amplitude == "learned"
        if loss.harmonic and not learned:
            raise ValueError(
                f"loss.harmonic is {loss.harmonic}, but no harmonic amplitude is learned; it needs embedding.kind: "
                "wave and embedding.amplitude: learned"
            )
        if loss.phase and loss.variant == "circular" and not (attention.has_phasors or embedding.kind == "wave"):
            raise ValueError(
                f"loss.phase is {loss.phase}, but the model has no phasors; it needs attention.kind: interference or "
                "pure_wave, or embedding.kind: wave"
            )

    def _check_widths(self) -> None:
        d, H, attention = self.d_model, self.heads, self.attention
        if d % H:
            raise ValueError(f"d_model is {d}, which {H} heads do not divide; it must be a multiple of heads")
        h = d // H
        separate = attention.kind == "interference" and attention.projections == "separate"
        halves = attention.kind == "rope" or separate
        if halves and h % 2:
            raise ValueError(f"a head is {h} wide (d_model {d} / heads {H}); attention.kind {attention.kind} needs an "
                             "even width")  # fmt: skip
        fitting = h // 2 if separate else h
        if attention.waves is not None and attention.waves > fitting:
            raise ValueError(
                f"attention.waves is {attention.waves}, but a head of {h} has room for {fitting} with projections: "
                f"{attention.projections}"
            )

    @property
    def head_dim(self) -> int:
        """h = d / H."""
        return self.d_model // self.heads

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is allowed and probably not meant, a line each."""
        embedding, project = self.embedding, self.optimizer.project
        found = []
        if project.side == "weight" and project.rank is None and project.weight > 0:
            found.append(
                "optimizer.project.rank is null: on square matrices of full rank the projection is the identity, and "
                "on others it is the weight's own row or column space"
            )
        if embedding.kind == "wave" and embedding.times == "log" and embedding.omega_range is not None:
            low, high = embedding.omega_range
            first = 1 / high
            ratio = (math.tau * high / low) ** (1 / max(embedding.waves - 1, 1))
            turn = embedding.harmonics * high * first * (ratio - 1)
            if turn >= math.pi:
                found.append(
                    f"embedding.waves is {embedding.waves}: harmonics × ω_max × Δτ is {turn:.1f} from the first "
                    "observation time to the second, π or more, so that neighbouring times alias"
                )
        return tuple(found)

    def to_dict(self) -> dict[str, Any]:
        """As nested mappings, for JSON or YAML; `WaveConfig(**…)` is the inverse."""
        return asdict(self)


SECTIONS: Mapping[str, type] = {
    "embedding": EmbeddingConfig,
    "attention": AttentionConfig,
    "mlp": MlpConfig,
    "loss": LossConfig,
    "optimizer": OptimizerConfig,
}
