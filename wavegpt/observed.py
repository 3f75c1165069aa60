"""What losses and diagnostics see of a forward pass."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Observed:
    """Filled by a model that is called with it.

    Attributes:
        states: the residual stream: the embedding's output, then each block's, (B, T, d).
        phasors: (real, imaginary) of the keys' phasors of each attention that has some, (B, H, T, W).
        features: of queries and keys of each attention, as it mixes values by them.
        waves: (real, imaginary) of the embedding's waves, (B, T, W).
        harmonics: learned harmonic amplitudes of the embedding, (N,).
        with_features: whether `features` are wanted; training needs none.
    """

    states: list[Tensor] = field(default_factory=list)
    phasors: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    features: list[tuple[tuple[Tensor, ...], tuple[Tensor, ...]]] = field(default_factory=list)
    waves: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    harmonics: Tensor | None = None
    with_features: bool = False
