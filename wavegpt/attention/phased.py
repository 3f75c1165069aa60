"""Kinds of attention that compute with phases: interference, and the source's pure waves."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wavegpt.attention.base import Attention
from wavegpt.attention.cache import LayerCache
from wavegpt.attention.kernels import Features, form_of, source_attention, weighted
from wavegpt.attention.phases import running_phase
from wavegpt.attention.places import Places
from wavegpt.config import WaveConfig
from wavegpt.observed import Observed

_KERNEL_EPSILON = 1e-6  # of a sum of kernel weights


class Phased(Attention):
    """Base of the kinds with phases θ = position + φ(x); frequencies ω(x) where the phase asks for some.

    Attributes:
        phases: linear maps to φ of queries and of keys; one where projections are shared.
        frequency: linear maps to ω; one, except for the source's pure waves.
    """

    def __init__(self, config: WaveConfig) -> None:
        super().__init__(config)
        d, wide = config.d_model, config.heads * self.W
        separate = self.about.projections == "separate"
        self.phases = nn.ModuleList(nn.Linear(d, wide) for _ in range(1 + separate))
        if self.about.phase in ("evolved", "integrated", "source"):
            two = separate and self.about.kind == "pure_wave" and self.about.phase == "evolved"
            self.frequency = nn.ModuleList(nn.Linear(d, wide) for _ in range(1 + two))

    def _omega(self, x: Tensor, places: Places) -> list[Tensor]:
        """ω(x) of queries and keys, (B, H, T, W)."""
        found = []
        for projection in self.frequency:
            f = _wide(self._split(projection(x)))
            if self.about.frequency == "ladder":
                f = places.ladder(self.W, self.about.rope_base, f.dtype) * (1 + f.tanh())
            found.append(f)
        return [found[0], found[-1]]

    def _theta(self, x: Tensor, places: Places, cache: LayerCache | None) -> list[Tensor]:
        """θ of queries and keys, (B, H, T, W); of phase `source` φ alone."""
        phi = [_wide(self._split(projection(x))) for projection in self.phases]
        phi = [phi[0], phi[-1]]
        if self.about.phase == "fixed":
            turned = places.angles(self.W, self.about.rope_base, phi[0].dtype)
        if self.about.phase == "evolved":
            t = places.positions[:, None, :, None].to(phi[0].dtype)
            return [p + omega * t for p, omega in zip(phi, self._omega(x, places), strict=True)]
        if self.about.phase == "integrated":
            turned = running_phase(
                self._omega(x, places)[1], cache.running if cache is not None else None, places.starts()
            )
            if cache is not None:
                cache.running = turned[..., -1:, :]
        if self.about.phase in ("fixed", "integrated"):
            phi = [p + turned for p in phi] if phi[0] is not phi[1] else [phi[0] + turned] * 2
        return phi


class Interference(Phased):
    """Weights from |z_q + z_k|² of phasors z = A e^{iθ} (`wavegpt.attention.kernels`); A = softplus(a(x))."""

    def __init__(self, config: WaveConfig) -> None:
        super().__init__(config)
        wide = config.heads * self.W
        self.amplitudes = nn.ModuleList(nn.Linear(config.d_model, wide) for _ in self.phases)
        self.form = form_of(self.about.terms, self.about.normalise, self.about.impl)

    def initialise(self) -> None:
        """Amplitudes start at `amp_init`."""
        for projection in self.amplitudes:
            assert isinstance(projection, nn.Linear)
            nn.init.constant_(projection.bias, math.log(math.expm1(self.about.amp_init)))

    def features(
        self, x: Tensor, places: Places, cache: LayerCache | None, observed: Observed | None
    ) -> tuple[Features, Features]:
        A = [F.softplus(_wide(self._split(projection(x)))) for projection in self.amplitudes]
        theta = self._theta(x, places, cache)
        if observed is not None:
            observed.phasors.append((A[-1] * theta[1].cos(), A[-1] * theta[1].sin()))
        scale = self._scale()
        if self.about.phase == "source":
            omega = self._omega(x, places)
            t = places.positions[:, None, :, None].to(A[0].dtype).expand(*A[0].shape[:-1], 1)
            factor = torch.as_tensor(scale, dtype=A[0].dtype, device=x.device).expand_as(t)
            return (A[0], theta[0], omega[0], t, factor), (A[-1], theta[1], omega[1], t)
        return self.form.query(A[0], theta[0], scale), self.form.key(A[-1], theta[1])

    def mix(self, query: Features, key: Features, value: Tensor, places: Places) -> Tensor:
        allowed = places.allowed(value.shape[-2])
        if self.about.phase == "source":
            return source_attention(query, key, value, allowed, self.about.terms, self.about.normalise)
        return self.form.attend(query, key, value, allowed)


class PureWave(Phased):
    r"""Unnormalised or summed kernels κ of wave features u = W^{−1/4} [cos θ ‖ sin θ], or sin θ normed (source).

    `where: score` weighs by κ(g_head u_q · u_k), `feature` by κ(u_q) · κ(u_k), in linear time. `normalise: sum` makes
    weights sum to 1, `sqrt_t` divides by √(t + 1).
    """

    def __init__(self, config: WaveConfig) -> None:
        super().__init__(config)
        self.gain = nn.Parameter(torch.ones(config.heads, 1, 1))
        power = self.about.power
        kernels: dict[str, Callable[[Tensor], Tensor]] = {
            "elu1": lambda s: F.elu(s) + 1, "sigmoid": torch.sigmoid, "exp": torch.exp, "identity": lambda s: s,
            "power_p": lambda s: s**power,
        }  # fmt: skip
        assert self.about.kernel is not None
        self.kernel = kernels[self.about.kernel]

    def features(
        self, x: Tensor, places: Places, cache: LayerCache | None, observed: Observed | None
    ) -> tuple[Features, Features]:
        theta = self._theta(x, places, cache)
        if observed is not None:
            observed.phasors.append((theta[1].cos(), theta[1].sin()))
        q, k = self._waves(theta[0]) * self.gain, self._waves(theta[1])
        if self.linear:
            q, k = self.kernel(q), self.kernel(k)
        return (q, places.positions[:, None, :, None].expand(*q.shape[:-1], 1)), (k,)

    def _waves(self, theta: Tensor) -> Tensor:
        if self.about.sin_only:
            return F.normalize(theta.sin(), dim=-1) * self.W**0.25
        return torch.cat([theta.cos(), theta.sin()], dim=-1) * self.W**-0.25

    def mix(self, query: Features, key: Features, value: Tensor, places: Places) -> Tensor:
        scores = self.kernel(query[0] @ key[0].mT)
        normalise = "sum" if self.about.normalise == "sum" else "none"
        y = weighted(scores, value, places.allowed(value.shape[-2]), normalise, _KERNEL_EPSILON)
        return y if normalise == "sum" else y / (query[1] + 1).to(y.dtype).sqrt()

    def _normalised(self, sums: Tensor, total: Tensor, places: Places) -> Tensor:
        if self.about.normalise == "sum":
            return sums / (total + _KERNEL_EPSILON)
        return sums / (places.positions[:, None, :, None] + 1).to(sums.dtype).sqrt()


def _wide(x: Tensor) -> Tensor:
    """In fp32 at least: 16 bits would lose angles."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
