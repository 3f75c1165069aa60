"""Configuration of the token embedding. Imports no torch."""

import math
from dataclasses import dataclass, field
from typing import Literal

from modulant.settings import NonNegativeInt, PositiveInt, Share, checked
from wavegpt.config.sections import section, set_fields

NEEDS_RANKS = (
    "embedding.mass is {mass}, which needs the tokens' ranks by frequency: give WaveGPT(config, ranks=…) those of a "
    "tokenizer artifact with counts, or choose mass: id"
)


@dataclass(frozen=True)
class AnnealConfig:
    """Mixing from a table into the waves: e = (1 − r) waves + r table, r a pure function of the step.

    Attributes:
        steps: over which r goes from start to end; 0: no table.
        start: r at step 0.
        end: r from `steps` on.
        shape: linear, or half a cosine.
        position: the table's path has the waves' positions too; false is the source, where r = 1 has none.
    """

    steps: NonNegativeInt = 0
    start: Share = 1.0
    end: Share = 0.0
    shape: Literal["linear", "cosine"] = "linear"
    position: bool = True

    @checked
    def __post_init__(self) -> None: ...

    def ratio(self, step: int) -> float:
        """r at a step.

        >>> [AnnealConfig(steps=3000).ratio(step) for step in (0, 1500, 3000, 9000)]
        [1.0, 0.5, 0.0, 0.0]
        """
        if self.steps == 0:
            return 0.0
        done = min(max(step / self.steps, 0.0), 1.0)
        if self.shape == "cosine":
            done = (1 - math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class EmbeddingConfig:
    """Token embedding: a table, a factorised table, or wave packets (`wavegpt.embedding`).

    Attributes:
        kind: wave; the controls are table (V × d) and factorised (V × r → d).
        mass: what sets a token's frequency: its frequency rank, its id, or a control.
        waves: W, waves of a token.
        harmonics: N of each wave.
        omega_range: bounds of the frequencies; null: √(rank + 1) as it is.
        times: observation times of the waves: log-spaced, or one constant time (the source).
        harmonic_phase: multiplied: true harmonics, n(ωτ + φ + Ωt); fundamental: nωτ + φ + Ωt (the source).
        amplitude: of waves and harmonics: fixed 1/n, or learned from there.
        phase_init: zero, or uniform in [0, 2π) (the source).
        position: phase: Ωt is part of the phase; none: attention carries positions.
        anneal: mixing from a table.
        rank: r of the factorised table; null: as many parameters as the waves have.
        normed: of table: its rows are normed, as those of waves and of the factorised table always are.
    """

    kind: Literal["wave", "table", "factorised"] = "wave"
    mass: Literal["rank", "id", "shuffled", "constant", "reversed", "learned"] = "rank"
    waves: PositiveInt = 48
    harmonics: PositiveInt = 4
    omega_range: tuple[float, float] | list[float] | None = (0.1, 3.0)
    times: Literal["log", "one"] = "log"
    harmonic_phase: Literal["multiplied", "fundamental"] = "multiplied"
    amplitude: Literal["learned", "fixed"] = "learned"
    phase_init: Literal["zero", "uniform"] = "zero"
    position: Literal["none", "phase"] = "none"
    anneal: AnnealConfig = field(default_factory=AnnealConfig)
    rank: PositiveInt | None = None
    normed: bool = False

    @checked
    def __post_init__(self) -> None:
        if self.normed and self.kind != "table":
            raise ValueError(f"normed is true, but kind is {self.kind}, which is normed anyway; it needs kind: table")
        set_fields(self, anneal=section(AnnealConfig, self.anneal, "anneal"))
        if self.omega_range is not None:
            set_fields(self, omega_range=tuple(self.omega_range))
            if len(self.omega_range) != 2 or not 0 < self.omega_range[0] < self.omega_range[1]:
                raise ValueError(f"omega_range is {list(self.omega_range)}; it must be two frequencies, 0 < low < high")
        if self.anneal.steps and self.kind != "wave":
            raise ValueError(f"anneal.steps is {self.anneal.steps}, but kind is {self.kind}; it needs kind: wave")

    @property
    def needs_ranks(self) -> bool:
        """Whether the tokens' frequency ranks must be given."""
        return self.kind == "wave" and self.mass in ("rank", "shuffled", "reversed")
