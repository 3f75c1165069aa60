"""Configuration of the loss and the optimizer. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from modulant.settings import Interval, NonNegativeFloat, PositiveFloat, PositiveInt, Share, checked
from wavegpt.config.sections import section, set_fields


@dataclass(frozen=True)
class LossConfig:
    """Weights of what is added to the cross-entropy (`wavegpt.training.losses`); all 0: cross-entropy.

    Attributes:
        phase: of the incoherence of phasors within windows.
        energy: of the drift of norms from layer to layer.
        harmonic: of the divergence of learned harmonic amplitudes from 1/n.
        window: tokens of a window.
        stride: from window to window; null: the window.
        variant: circular, or the source's formulas.
    """

    phase: NonNegativeFloat = 0.0
    energy: NonNegativeFloat = 0.0
    harmonic: NonNegativeFloat = 0.0
    window: Annotated[int, Interval(minimum=2)] = 8
    stride: PositiveInt | None = None
    variant: Literal["circular", "source"] = "circular"

    @checked
    def __post_init__(self) -> None: ...


@dataclass(frozen=True)
class ProjectConfig:
    """Projection of the gradients of hidden matrices: g ← c g_projected + (1 − c) g.

    Attributes:
        side: none; weight: on the leading singular subspaces of the weight; gradient: of the gradient (GaLore).
        rank: of the subspaces, or their share of the shorter side; null: all of it (the source).
        every: steps from one computation of the subspaces to the next.
        weight: c; with 1 and side gradient, the moments are kept in the subspace.
    """

    side: Literal["none", "weight", "gradient"] = "none"
    rank: PositiveInt | Annotated[float, Interval(exclusiveMinimum=0, exclusiveMaximum=1)] | None = None
    every: PositiveInt = 200
    weight: Share = 0.7

    @checked
    def __post_init__(self) -> None:
        if self.side == "gradient" and self.rank is None:
            raise ValueError(
                "rank is null, but side is gradient, whose whole space is no projection; it must be a rank"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer: hidden matrices by `base`, everything else by AdamW unless base is sgd.

    Attributes:
        base: adamw, muon, or sgd with momentum 1 − damping.
        lr: learning rate.
        weight_decay: of matrices; angles and vectors have none. For base sgd coupled, as the source has it.
        betas: of AdamW.
        damping: γ of sgd.
        lr_inside: of sgd: the velocity holds the learning rates (the source), so that a schedule acts late.
        project: projection of the gradients of hidden matrices.
        angle_lr: learning rate of phases and frequencies; null: lr.
        fallback_lr: of base muon: AdamW's rate for everything that is not a hidden matrix; null: lr.
    """

    base: Literal["adamw", "muon", "sgd"] = "adamw"
    lr: PositiveFloat = 3e-3
    weight_decay: NonNegativeFloat = 0.0
    betas: tuple[float, float] | list[float] = (0.9, 0.95)
    damping: Share = 0.1
    lr_inside: bool = True
    project: ProjectConfig = field(default_factory=ProjectConfig)
    angle_lr: PositiveFloat | None = None
    fallback_lr: PositiveFloat | None = None

    @checked
    def __post_init__(self) -> None:
        set_fields(self, project=section(ProjectConfig, self.project, "project"), betas=tuple(self.betas))
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {list(self.betas)}; it must be two numbers in [0, 1)")
