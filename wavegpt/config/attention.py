"""Configuration of attention, and which of its options exclude each other. Imports no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

from modulant.settings import Interval, PositiveFloat, PositiveInt, checked
from wavegpt.config.sections import set_fields


@dataclass(frozen=True)
class AttentionConfig:
    """Causal attention: one module, orthogonal options (`wavegpt.attention`).

    Attributes:
        kind: interference, or one of its controls: rope, nope (no positions), cosine, pure_wave.
        projections: separate phases and amplitudes of queries and keys, or shared ones (the source).
        waves: W of a head; null: h/2, or h for shared projections, sin_only and cosine.
        phase: θ of a token: fixed Ωt + φ; evolved ω(x)t + φ; integrated Σω(x) + φ; source ΔωΔt + Δφ; none φ.
        frequency: ω(x) of it: ladder, Ω(1 + tanh f(x)), or free, f(x) (the source).
        terms: full |z_q + z_k|², cross 2⟨z_q, z_k⟩, or difference −|z_q − z_k|².
        normalise: softmax; sum, I/ΣI; energy, I/E (the source); sqrt_t, of pure_wave (the source). For pure_wave
            softmax means sum: weights sum to 1.
        impl: auto chooses the fastest exact form.
        amp_init: amplitude at the start; 0.05 turns the locality prior off.
        locality: of rope: biases of q and k that give it the same locality prior.
        temperature: learned per head, shared by all heads (the source's cosine), or none.
        kernel: of pure_wave; null: elu1.
        power: of the kernel power_p.
        where: of pure_wave: the kernel of the score (quadratic) or of each feature (linear time); null: score.
        sin_only: of pure_wave: features sin θ (the source) instead of cos θ and sin θ.
        rope_base: B of the ladder Ω_w = B^(−w/W).
    """

    kind: Literal["interference", "rope", "nope", "cosine", "pure_wave"] = "interference"
    projections: Literal["separate", "shared"] = "separate"
    waves: PositiveInt | None = None
    phase: Literal["fixed", "evolved", "integrated", "source", "none"] = "fixed"
    frequency: Literal["ladder", "free"] = "ladder"
    terms: Literal["full", "cross", "difference"] = "full"
    normalise: Literal["softmax", "sum", "energy", "sqrt_t"] = "softmax"
    impl: Literal["auto", "naive", "matmul", "sdpa", "chunked"] = "auto"
    amp_init: PositiveFloat = 0.69
    locality: bool = False
    temperature: Literal["per_head", "shared", "none"] = "per_head"
    kernel: Literal["elu1", "sigmoid", "exp", "identity", "power_p"] | None = None
    power: PositiveInt = 2
    where: Literal["score", "feature"] | None = None
    sin_only: bool = False
    rope_base: Annotated[float, Interval(exclusiveMinimum=1)] = 10_000.0

    @checked
    def __post_init__(self) -> None:
        if self.kind == "interference":
            self._check_interference()
        elif self.kind == "pure_wave":
            self._check_pure_wave()
        if self.kind != "pure_wave":
            for name in ("kernel", "where"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is {getattr(self, name)}, but kind is {self.kind}; it needs pure_wave")
        if self.locality and self.kind != "rope":
            raise ValueError(f"locality is true, but kind is {self.kind}; it needs rope (interference has amp_init)")

    def _check_interference(self) -> None:
        """Combinations of interference that have no meaning or no such form."""
        if self.normalise == "sqrt_t":
            raise ValueError("normalise is sqrt_t, but kind is interference; it must be softmax, sum or energy")
        if self.normalise in ("sum", "energy") and self.terms != "full":
            raise ValueError(
                f"normalise is {self.normalise}, but terms is {self.terms}; it needs terms: full, the intensity, which "
                "is never negative"
            )
        check_impl(self.impl, self.normalise)
        if self.phase == "source" and self.impl not in ("auto", "naive"):
            raise ValueError(
                f"impl is {self.impl}, but phase is source: its ΔωΔt is no difference of a query's and a key's phase, "
                "so that it has no such form; it must be naive or auto"
            )

    def _check_pure_wave(self) -> None:
        """Combinations of kernels; null and softmax become what they mean."""
        set_fields(self, kernel=self.kernel or "elu1", where=self.where or "score")
        if self.normalise == "softmax":
            set_fields(self, normalise="sum")
        if self.normalise == "energy":
            raise ValueError("normalise is energy, but kind is pure_wave; it must be sum or sqrt_t")
        if self.phase == "source":
            raise ValueError("phase is source, but kind is pure_wave; it must be fixed, evolved, integrated or none")
        signed = self.kernel == "identity" or (self.kernel == "power_p" and self.power % 2)
        if signed and self.normalise == "sum":
            raise ValueError(
                f"normalise is sum, but the kernel {self.kernel} may be negative, so that a sum may be 0; it must be "
                "sqrt_t"
            )
        wanted = "chunked" if self.where == "feature" else "matmul"
        if self.impl not in ("auto", wanted):
            raise ValueError(f"impl is {self.impl}, but pure_wave with where: {self.where} has {wanted} alone")

    def waves_of(self, head_dim: int) -> int:
        """W of a head of this width."""
        halves = not self.sin_only if self.kind == "pure_wave" else self.projections == "separate"
        return self.waves or (head_dim if self.kind == "cosine" or not halves else max(head_dim // 2, 1))

    @property
    def linear(self) -> bool:
        """Whether decoding needs a constant state alone."""
        if self.kind == "pure_wave":
            return self.where == "feature"
        return (
            self.kind == "interference"
            and self.normalise == "sum"
            and self.impl in ("auto", "chunked")
            and self.phase != "source"
        )

    @property
    def has_phasors(self) -> bool:
        """Whether it computes with amplitudes and phases."""
        return self.kind in ("interference", "pure_wave")


def check_impl(impl: str, normalise: str) -> None:
    """Refuse a form that does not exist for a normalisation.

    Raises:
        ValueError: its one line says why.
    """
    if impl == "sdpa" and normalise != "softmax":
        raise ValueError(
            f"impl is sdpa, but normalise is {normalise}: fused attention is a softmax; it must be naive, matmul "
            "or auto"
        )
    if impl == "chunked" and normalise != "sum":
        raise ValueError(
            f"impl is chunked, but normalise is {normalise}, which has no finite feature map; it needs normalise: sum"
        )
