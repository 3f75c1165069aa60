r"""Token embeddings: wave packets, and their controls of the same module.

A token i is W waves of N harmonics, seen at W observation times τ_w:

    ψ_{i,w,n}(t) = s_{i,w} a_n exp{i n (ω̂_i τ_w + φ_{i,w} + Ω_w t)},   e = norm(P [Re ψ ‖ Im ψ] + b),

with ω_i = √(rank_i + 1) from Zipf's mass 1 / (rank + 1), and between bounds
ω̂_i = ω_min (ω_max / ω_min)^{ln ω_i / ln ω_V}.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from wavegpt.attention.features import packed
from wavegpt.attention.phases import ladder
from wavegpt.config import EmbeddingConfig, WaveConfig
from wavegpt.config.embedding import NEEDS_RANKS
from wavegpt.observed import Observed

_HEAD_SCALE = 0.02  # of rows of norm √d that serve as a tied head: logits start small
_LONGEST = 10_000.0  # base of the ladder of Ω


def norm_of(config: WaveConfig) -> nn.Module:
    """The norm of this configuration."""
    return nn.LayerNorm(config.d_model) if config.norm == "layer" else nn.RMSNorm(config.d_model, eps=1e-5)


def embedding_of(config: WaveConfig, ranks: Tensor | None = None) -> "TokenEmbedding":
    """The embedding of a configuration; `ranks` as for `WaveGPT`.

    Raises:
        ValueError: ranks are needed and missing, or are no permutation of 0 … V − 1.
    """
    if config.embedding.kind == "table":
        return TableEmbedding(config)
    if config.embedding.kind == "factorised":
        return FactorisedEmbedding(config)
    return WaveEmbedding(config, ranks)


class TokenEmbedding(nn.Module):
    """Base: `forward` embeds ids (B, T), `rows` is all of the vocabulary at position 0."""

    def forward(self, ids: Int[Tensor, "B T"], positions: Tensor, ratio: float | int | Tensor, observed: Observed | None
                ) -> Float[Tensor, "B T d"]:  # fmt: skip
        """Embed tokens.

        Args:
            ids: of tokens.
            positions: (B, T) or (1, T).
            ratio: r of the annealing.
            observed: gets the phasors, if there are any.
        """
        raise NotImplementedError

    def head_weight(self, ratio: float | int | Tensor) -> Float[Tensor, "V d"]:
        """The weight of a tied head."""
        raise NotImplementedError

    @property
    def harmonic_amplitudes(self) -> Tensor | None:
        """a_n, (N,), if they are learned."""
        return None

    def angles(self) -> list[nn.Parameter]:
        """Phases and frequencies: no weight decay, a learning rate of their own."""
        return []


class TableEmbedding(TokenEmbedding):
    """One row a token, V × d; normed on request."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__()
        self.table = nn.Embedding(_vocab(config), config.d_model)
        self.norm = norm_of(config) if config.embedding.normed else None

    def forward(self, ids: Tensor, positions: Tensor, ratio: float | int | Tensor, observed: Observed | None) -> Tensor:
        rows = self.table(ids)
        return rows if self.norm is None else self.norm(rows)

    def head_weight(self, ratio: float | int | Tensor) -> Tensor:
        return self.table.weight if self.norm is None else _HEAD_SCALE * self.norm(self.table.weight)


class FactorisedEmbedding(TokenEmbedding):
    """A table of rank r, V × r, projected to d and normed as waves are; r by default for as many parameters."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__()
        V, d, about = _vocab(config), config.d_model, config.embedding
        angles = V * about.waves * (2 if about.amplitude == "learned" else 1)
        waves = angles + 2 * about.waves * about.harmonics * d
        self.factors = nn.Embedding(V, about.rank or max(round(waves / (V + d)), 1))
        self.project = nn.Linear(self.factors.embedding_dim, d)
        self.norm = norm_of(config)

    def forward(self, ids: Tensor, positions: Tensor, ratio: float | int | Tensor, observed: Observed | None) -> Tensor:
        return self.norm(self.project(self.factors(ids)))

    def head_weight(self, ratio: float | int | Tensor) -> Tensor:
        return _HEAD_SCALE * self.norm(self.project(self.factors.weight))


class WaveEmbedding(TokenEmbedding):
    """Wave packets; with annealing, mixed with a table before the norm: (1 − r) waves + r table.

    Attributes:
        ranks: of the tokens as they are used (shuffled, reversed, …), (V,).
        rotation: ω̂_i τ_w modulo 2π, (V, W), computed in fp64; always fp32 at least.
    """

    ranks: Tensor
    rotation: Tensor

    def __init__(self, config: WaveConfig, ranks: Tensor | None = None) -> None:
        super().__init__()
        V, d, about = _vocab(config), config.d_model, config.embedding
        W, N = about.waves, about.harmonics
        self.about = about
        self.register_buffer("ranks", _masses(about, V, ranks))
        uniform = about.phase_init == "uniform"
        self.phase = nn.Parameter(torch.rand(V, W) * math.tau if uniform else torch.zeros(V, W))
        if about.mass == "learned":
            self.log_omega = nn.Parameter(frequencies(self.ranks, about.omega_range).log().float())
        if about.position == "phase":
            omega = torch.randn(W) * 0.1 if uniform else ladder(W, _LONGEST).float()
            self.omega = nn.Parameter(omega.to(torch.get_default_device()))
        if about.amplitude == "learned":
            self.scale_logits = nn.Parameter(torch.zeros(V, W))  # s = 2σ(·) is 1
            self.harmonic_logs = nn.Parameter(-torch.arange(1.0, N + 1).log())
        self.project = nn.Linear(2 * W * N, d)
        if about.anneal.steps:
            self.table = nn.Embedding(V, d)
        self.norm = norm_of(config)
        self.register_buffer("rotation", self._rotation(), persistent=False)
        self.register_load_state_dict_post_hook(_rotated)  # type: ignore[no-untyped-call]

    def _rotation(self) -> Tensor:
        return rotations(frequencies(self.ranks, self.about.omega_range, self.about.mass), self.about).to(
            torch.promote_types(self.phase.dtype, torch.float32)
        )

    def _rotate(self) -> None:
        self.rotation = self._rotation()

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def] # a cast to 16 bits must not reach the angles
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._rotate()
        return self

    @property
    def harmonic_amplitudes(self) -> Tensor | None:
        return self.harmonic_logs.exp() if self.about.amplitude == "learned" else None

    def angles(self) -> list[nn.Parameter]:
        return [self.get_parameter(name) for name in ("phase", "omega", "log_omega") if hasattr(self, name)]

    def forward(self, ids: Tensor, positions: Tensor, ratio: float | int | Tensor, observed: Observed | None) -> Tensor:
        if observed is not None:
            angle, scale = self._angle(ids, positions), self._scale(ids)
            observed.waves.append((scale * angle.cos(), scale * angle.sin()))
        if self.about.position == "none":
            if ids.numel() >= len(self.phase):  # every row once is less than every token
                return F.embedding(ids, self.rows(ratio))
            positions = None  # type: ignore[assignment]
        return self.norm(self._mixed(ids, positions, ratio))

    def rows(self, ratio: float | int | Tensor = 0.0) -> Float[Tensor, "V d"]:
        """The whole vocabulary at position 0."""
        return self.norm(self._mixed(None, None, ratio))

    def head_weight(self, ratio: float | int | Tensor) -> Tensor:
        return _HEAD_SCALE * self.rows(ratio)

    def state(self, ids: Tensor | None, positions: Tensor | None) -> Float[Tensor, "*tokens two_WN"]:
        """[Re ψ ‖ Im ψ] of tokens, or of all of the vocabulary; within each, wave by wave of harmonic 1, then 2, …"""
        n = self._numbers()
        if self.about.harmonic_phase == "multiplied":
            angle = self._angle(ids, positions)[..., None, :] * n
        else:
            angle = self._turn(ids)[..., None, :] * n + self._shift(ids, positions)[..., None, :]
        amplitude = self._scale(ids)[..., None, :] * self._decay(n)
        return packed(amplitude.expand_as(angle).flatten(-2), angle.flatten(-2))

    def _mixed(self, ids: Tensor | None, positions: Tensor | None, ratio: float | int | Tensor) -> Tensor:
        """Waves and table before the norm."""
        # In training the table stays in the graph: DDP waits for a gradient of each parameter.
        plain = not self.about.anneal.steps or (not self.training and isinstance(ratio, float | int) and ratio == 0)
        waves = self.project(self.state(ids, positions).to(self.project.weight.dtype))
        if plain:
            return waves
        table = self.table.weight if ids is None else self.table(ids)
        if positions is not None and self.about.anneal.position:
            n = self._numbers()
            angle = positions[..., None, None] * self.omega * n
            where = packed(self._decay(n).expand_as(angle).flatten(-2), angle.flatten(-2))
            table = table + F.linear(where.to(table.dtype), self.project.weight)
        return (1 - ratio) * waves + ratio * table

    def _numbers(self) -> Tensor:
        """1 … N, (N, 1)."""
        return torch.arange(1, self.about.harmonics + 1, device=self.phase.device, dtype=self.rotation.dtype)[:, None]

    def _turn(self, ids: Tensor | None) -> Tensor:
        """ω̂ τ modulo 2π."""
        if self.about.mass == "learned":
            times = observation_times(self.about, len(self.phase)).to(self.log_omega.device, self.rotation.dtype)
            log = self.log_omega if ids is None else self.log_omega[ids]
            return log.to(self.rotation.dtype).exp()[..., None] * times
        return self.rotation if ids is None else F.embedding(ids, self.rotation)

    def _shift(self, ids: Tensor | None, positions: Tensor | None) -> Tensor:
        """φ + Ω t."""
        phase = (self.phase if ids is None else F.embedding(ids, self.phase)).to(self.rotation.dtype)
        if positions is None or self.about.position == "none":
            return phase
        return phase + positions[..., None] * self.omega.to(self.rotation.dtype)

    def _angle(self, ids: Tensor | None, positions: Tensor | None) -> Tensor:
        return self._turn(ids) + self._shift(ids, positions)

    def _scale(self, ids: Tensor | None) -> Tensor:
        """s, (…, W)."""
        if self.about.amplitude == "fixed":
            return self.rotation.new_ones(*(() if ids is None else ids.shape), 1)
        logits = self.scale_logits if ids is None else F.embedding(ids, self.scale_logits)
        return 2 * logits.to(self.rotation.dtype).sigmoid()

    def _decay(self, n: Tensor) -> Tensor:
        learned = self.harmonic_amplitudes
        return 1 / n if learned is None else learned.to(n.dtype)[:, None]


def _rotated(module: WaveEmbedding, _: object) -> None:
    module._rotate()


def frequencies(
    ranks: Tensor, omega_range: tuple[float, float] | list[float] | None, mass: str = "rank"
) -> Float[Tensor, " V"]:
    """ω of ranks in fp64: √(rank + 1), or its logarithm mapped onto that of the range. `constant` is the middle.

    >>> frequencies(torch.arange(4), None).tolist()[::3]
    [1.0, 2.0]
    """
    V = len(ranks)
    share = (ranks.double() + 1).log() / math.log(max(V, 2))  # 0 … 1
    if mass == "constant":
        share = torch.full_like(share, 0.5)
    if omega_range is None:
        return V ** (share / 2) if mass == "constant" else (ranks.double() + 1).sqrt()
    low, high = omega_range
    return low * (high / low) ** share


def observation_times(about: EmbeddingConfig, V: int) -> Float[Tensor, " W"]:
    """τ_w in fp64: from 1/ω_max to 2π/ω_min, evenly in the logarithm; or 2π, one constant time."""
    if about.times == "one":
        return torch.full((1,), math.tau, dtype=torch.float64)
    low, high = about.omega_range or (1.0, V**0.5)
    return torch.logspace(-math.log10(high), math.log10(math.tau / low), about.waves, dtype=torch.float64)


def rotations(omega: Float[Tensor, " V"], about: EmbeddingConfig) -> Float[Tensor, "V W"]:
    """ω τ modulo 2π in fp64, (V, W)."""
    return (
        (omega[:, None] * observation_times(about, len(omega)).to(omega.device))
        .remainder(math.tau)
        .expand(-1, about.waves)
    )


def _vocab(config: WaveConfig) -> int:
    if config.vocab_size is None:
        raise ValueError("vocab_size is null; a model needs the number of its tokenizer's tokens")
    return config.vocab_size


def _masses(about: EmbeddingConfig, V: int, ranks: Tensor | None) -> Tensor:
    """The rank that each token's mass is computed from."""
    if ranks is None:
        if about.needs_ranks:
            raise ValueError(NEEDS_RANKS.format(mass=about.mass))
        return torch.arange(V)
    if ranks.shape != (V,) or not torch.equal(ranks.cpu().long().sort().values, torch.arange(V, device="cpu")):
        raise ValueError(f"ranks must be a permutation of 0 … {V - 1}, one rank a token of the vocabulary")
    ranks = ranks.long().clone()
    if about.mass == "id":
        return torch.arange(V)
    if about.mass == "reversed":
        return V - 1 - ranks
    if about.mass == "shuffled":  # by the seed of the run, and without a draw from its generator
        generator = torch.Generator().manual_seed(torch.initial_seed())
        return ranks[torch.randperm(V, generator=generator, device="cpu").to(ranks.device)]
    return ranks
