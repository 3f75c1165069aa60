r"""Optimizers of an arm: AdamW, Muon or damped SGD, with gradients projected on singular subspaces or as they are.

`WaveNativeOptimizer` is the source's: g ← g + λθ, g ← c P(g) + (1 − c) g on matrices, v ← (1 − γ) v − η g, θ ← θ + v.
It is SGD with momentum 1 − γ and coupled decay; on a square matrix of full rank P is the identity.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from wavegpt.config import OptimizerConfig, ProjectConfig
from wavegpt.model import WaveGPT
from wavegpt.training.projection import (
    compress,
    expand,
    gradient_basis,
    is_identity,
    orthogonalised,
    project,
    weight_bases,
)

Bases = tuple[Tensor | None, Tensor | None]


class WaveOptimizer(Optimizer):
    """AdamW, Muon or damped SGD by parameter group, each with a projection of its matrices' gradients.

    A group has `base` (adamw, muon, sgd), `lr`, `weight_decay`, `betas`, `eps`, `damping`, `lr_inside`, and of the
    projection `side`, `rank`, `every` and `weight`. Decay is decoupled, for sgd coupled.

    Raises:
        ValueError: a parameter is sharded: Muon and projections need whole matrices.
    """

    def __init__(self, params: Iterable[Any], lr: float, **defaults: Any) -> None:
        known = {
            "base": "adamw", "lr": lr, "weight_decay": 0.0, "betas": (0.9, 0.95), "eps": 1e-8, "damping": 0.1,
            "lr_inside": True, "side": "none", "rank": None, "every": 200, "weight": 0.7,
        }  # fmt: skip
        super().__init__(params, known | defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; refuse what is sharded and must be whole."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        whole = group["side"] != "none" or group["base"] == "muon"
        if whole and any(hasattr(p, "placements") for p in group["params"]):
            raise ValueError(
                "a parameter is sharded, and the optimizer needs whole matrices (Muon, or a projection); use "
                "optimizer.base: adamw and project.side: none, or strategy ddp"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._step(p, p.grad, self.state[p], group)
        return loss

    def _step(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        step = state["step"] = state.get("step", 0) + 1
        matrix = p.ndim == 2
        coupled = group["base"] == "sgd"
        if coupled and group["weight_decay"]:
            g = g.add(p, alpha=group["weight_decay"])
        bases: Bases | None = None
        if matrix and group["side"] != "none" and group["weight"] > 0:
            bases = self._bases(p, g, state, group, step)
        inner = bases is not None and group["side"] == "gradient" and group["weight"] == 1 and group["base"] == "adamw"
        if inner:
            assert bases is not None
            g = compress(g, bases)
        elif bases is not None:
            g = group["weight"] * project(g, bases) + (1 - group["weight"]) * g
        if not coupled and group["weight_decay"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])
        update = {"adamw": _adam, "muon": _muon, "sgd": _damped}[group["base"]](g, state, group, step)
        p.add_(expand(update, bases) if inner and bases is not None else update)

    def _bases(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], step: int) -> Bases | None:
        """The subspaces, computed anew every so many steps; None: projecting changes nothing."""
        if group["side"] == "weight" and is_identity(p, group["rank"]):
            return None
        if "left" not in state or (step - 1) % group["every"] == 0:
            side = group["side"]
            new = weight_bases(p, group["rank"]) if side == "weight" else gradient_basis(g, group["rank"])
            if side == "gradient" and "first" in state and state["first"].shape != p.shape:
                _move(state, (state["left"], state["right"]), new)
            state["left"], state["right"] = new
        return state["left"], state["right"]


def _move(state: dict[str, Any], old: Bases, new: Bases) -> None:
    """Moments of AdamW in the coordinates of a new basis: R m, and the squares of R on second moments."""
    if old[0] is not None and new[0] is not None:
        R = new[0].mT @ old[0]
        state["first"], state["second"] = R @ state["first"], R.square() @ state["second"]
    elif old[1] is not None and new[1] is not None:
        R = old[1].mT @ new[1]
        state["first"], state["second"] = state["first"] @ R, state["second"] @ R.square()


def _adam(g: Tensor, state: dict[str, Any], group: dict[str, Any], step: int) -> Tensor:
    beta1, beta2 = group["betas"]
    if "first" not in state:
        state["first"], state["second"] = torch.zeros_like(g), torch.zeros_like(g)
    first, second = state["first"], state["second"]
    first.lerp_(g, 1 - beta1)
    second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
    root = (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
    return (first / root).mul_(-group["lr"] / (1 - beta1**step))


def _muon(g: Tensor, state: dict[str, Any], group: dict[str, Any], step: int) -> Tensor:
    """Nesterov momentum 0.95, orthogonalised, scaled so that its entries are as large as AdamW's: 0.2 √max(m, n)."""
    if "first" not in state:
        state["first"] = torch.zeros_like(g)
    first = state["first"].lerp_(g, 0.05)
    direction = orthogonalised(g.lerp(first, 0.95))
    return direction.mul_(-group["lr"] * 0.2 * max(g.shape) ** 0.5)


def _damped(g: Tensor, state: dict[str, Any], group: dict[str, Any], step: int) -> Tensor:
    if "velocity" not in state:
        state["velocity"] = torch.zeros_like(g)
    velocity: Tensor = state["velocity"]
    velocity.mul_(1 - group["damping"])
    if group["lr_inside"]:
        return velocity.sub_(g, alpha=group["lr"])
    return velocity.sub_(g) * group["lr"]


class WaveNativeOptimizer(WaveOptimizer):
    """The source's optimizer, bit for bit SGD with momentum 1 − damping where its projection is the identity.

    Args:
        params: tensors or groups.
        lr: η; it is inside of the velocity, so that a schedule acts late.
        damping: γ.
        coherence_weight: c.
        weight_decay: λ, coupled.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        damping: float = 0.1,
        coherence_weight: float = 0.7,
        weight_decay: float = 0.0,
    ) -> None:
        for name, value, bound in (
            ("lr", lr, float("inf")), ("damping", damping, 1), ("coherence_weight", coherence_weight, 1),
            ("weight_decay", weight_decay, float("inf")),
        ):  # fmt: skip
            if not 0 <= value <= bound:
                raise ValueError(f"{name} is {value}; it must be at least 0" + (" and at most 1" if bound == 1 else ""))
        super().__init__(
            params, lr, base="sgd", damping=damping, weight_decay=weight_decay, side="weight", rank=None, every=1,
            weight=coherence_weight,
        )  # fmt: skip


def parameter_groups(model: WaveGPT, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Hidden matrices, other matrices, vectors (no decay), and angles (no decay, their own rate).

    Each has the keys of `WaveOptimizer` and a name.
    """
    angles = {id(p) for p in model.angles()}
    hidden = {id(m.weight) for m in model.blocks.modules() if isinstance(m, nn.Linear)}
    groups: dict[str, list[nn.Parameter]] = {"hidden": [], "tables": [], "vectors": [], "angles": []}
    for p in model.parameters():
        if p.requires_grad:
            kind = "tables" if p.ndim >= 2 else "vectors"
            groups["angles" if id(p) in angles else "hidden" if id(p) in hidden else kind].append(p)
    elsewhere = "sgd" if config.base == "sgd" else "adamw"
    fallback = (config.fallback_lr if config.base == "muon" else None) or config.lr
    about: dict[str, dict[str, Any]] = {
        "hidden": {"base": config.base, "lr": config.lr, "weight_decay": config.weight_decay, **_of(config.project)},
        "tables": {"base": elsewhere, "lr": fallback, "weight_decay": config.weight_decay},
        "vectors": {"base": elsewhere, "lr": fallback, "weight_decay": 0.0},
        "angles": {"base": elsewhere, "lr": config.angle_lr or fallback, "weight_decay": 0.0},
    }
    return [{"params": params, "name": name, **about[name]} for name, params in groups.items() if params]


def build_optimizer(model: WaveGPT, config: OptimizerConfig | None = None) -> Optimizer:
    """The optimizer of an arm: torch's fused AdamW where that is it, else `WaveOptimizer`.

    With base sgd and `project: {side: weight, rank: null, every: 1}` all matrices are projected and decay, as the
    source does: `WaveNativeOptimizer`.
    """
    config = config or model.config.optimizer
    project = config.project
    if config.base == "sgd" and config.lr_inside and project.side == "weight" and project.rank is None:
        return WaveNativeOptimizer(model.parameters(), config.lr, config.damping, project.weight, config.weight_decay)
    groups = parameter_groups(model, config)
    betas = (config.betas[0], config.betas[1])
    if config.base == "adamw" and project.side == "none":
        plain = [{key: group[key] for key in ("params", "name", "lr", "weight_decay")} for group in groups]
        return AdamW(plain, lr=config.lr, betas=betas, fused=True)
    return WaveOptimizer(groups, config.lr, betas=betas, damping=config.damping, lr_inside=config.lr_inside)


def _of(project: ProjectConfig) -> dict[str, Any]:
    return {"side": project.side, "rank": project.rank, "every": project.every, "weight": project.weight}
