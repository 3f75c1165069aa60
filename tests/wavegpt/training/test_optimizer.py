"""Optimizers: the projection's algebra, the source's variant as SGD, groups, states."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.wavegpt.arms import ARMS, V, some_ids
from wavegpt import OptimizerConfig, ProjectConfig, WaveGPT, WaveNativeOptimizer, build_optimizer, preset
from wavegpt.training.optimizer import WaveOptimizer, parameter_groups
from wavegpt.training.projection import gradient_basis, orthogonalised, project, weight_bases


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def test_on_a_square_matrix_of_full_rank_the_projection_is_the_identity() -> None:
    weight, gradient = drawn(6, 6), drawn(6, 6)
    U, _, Vh = torch.linalg.svd(weight)
    torch.testing.assert_close(U @ (U.T @ gradient @ Vh.T) @ Vh, gradient)
    assert torch.equal(project(gradient, weight_bases(weight)), gradient)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4)])
def test_a_longer_side_is_projected_on_the_weight_as_by_its_svd(shape: tuple[int, int]) -> None:
    weight, gradient = drawn(*shape), drawn(*shape)
    U, _, Vh = torch.linalg.svd(weight, full_matrices=False)
    ours = project(gradient, weight_bases(weight))
    torch.testing.assert_close(ours, U @ (U.T @ gradient @ Vh.T) @ Vh)
    if shape[0] < shape[1]:
        torch.testing.assert_close(ours, gradient @ Vh.T @ Vh)


@pytest.mark.parametrize(("rank", "r"), [(2, 2), (0.5, 2), (99, 4)])
def test_the_energy_that_is_kept(rank: float, r: int) -> None:
    weight, gradient = drawn(4, 9), drawn(4, 9)
    U, _, Vh = torch.linalg.svd(weight, full_matrices=False)
    bases = weight_bases(weight, rank)
    once = project(gradient, bases)
    kept = U[:, :r].T @ gradient @ Vh[:r].T
    assert once.norm().item() == pytest.approx(kept.norm().item())
    torch.testing.assert_close(project(once, bases), once)


def train(optimizer: Callable[[list[Tensor]], torch.optim.Optimizer], shapes: list[tuple[int, ...]], steps: int
          ) -> list[Tensor]:  # fmt: skip
    torch.manual_seed(0)
    parameters = [nn.Parameter(drawn(*shape)) for shape in shapes]
    targets = [drawn(*shape) for shape in shapes]
    stepping = optimizer(parameters)
    for _ in range(steps):
        stepping.zero_grad()
        sum(((p - t) ** 2).sum() + p.sin().sum() for p, t in zip(parameters, targets, strict=True)).backward()
        stepping.step()
    return [p.detach() for p in parameters]


def test_without_coherence_it_is_torchs_sgd() -> None:
    shapes = [(5, 5), (3, 8), (7,)]
    ours = train(lambda p: WaveNativeOptimizer(p, 0.01, 0.1, 0.0, weight_decay=0.02), shapes, 50)
    plain = train(lambda p: torch.optim.SGD(p, 0.01, momentum=0.9, weight_decay=0.02), shapes, 50)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_with_coherence_it_still_is_sgd_on_square_matrices_and_vectors_and_is_not_elsewhere() -> None:
    shapes = [(5, 5), (7,), (3, 8)]
    ours = train(lambda p: WaveNativeOptimizer(p, 0.01, coherence_weight=0.7), shapes, 20)
    plain = train(lambda p: torch.optim.SGD(p, 0.01, momentum=0.9), shapes, 20)
    for i, same in enumerate((True, True, False)):
        assert torch.allclose(ours[i], plain[i], atol=1e-12, rtol=0) is same


def test_the_source_update_written_out() -> None:
    p = nn.Parameter(drawn(3, 7))
    weight, velocity = p.detach().clone(), torch.zeros(3, 7, dtype=torch.float64)
    optimizer = WaveNativeOptimizer([p], 0.05, damping=0.2, coherence_weight=0.6, weight_decay=0.1)
    for _ in range(5):
        p.grad = drawn(3, 7)
        g = p.grad + 0.1 * weight
        U, _, Vh = torch.linalg.svd(weight, full_matrices=False)
        g = 0.6 * (U @ (U.T @ g @ Vh.T) @ Vh) + 0.4 * g
        velocity = 0.8 * velocity - 0.05 * g
        weight = weight + velocity
        optimizer.step()
    torch.testing.assert_close(p.detach(), weight)


def test_fully_coherent_steps_leave_the_orthogonal_complement() -> None:
    p = nn.Parameter(drawn(3, 7))
    basis = weight_bases(p.detach())[1]
    outside = torch.eye(7, dtype=torch.float64) - basis @ basis.T
    optimizer = WaveNativeOptimizer([p], 0.05, coherence_weight=1.0)
    for _ in range(5):
        p.grad = drawn(3, 7)
        optimizer.step()
    assert (p.detach() @ outside).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "value"), [("lr", -1.0), ("damping", 1.5), ("coherence_weight", 2.0)])
def test_arguments_out_of_range_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        WaveNativeOptimizer([nn.Parameter(drawn(2, 2))], **{"lr": 0.1, name: value})


def test_without_projection_it_is_torchs_adamw() -> None:
    shapes = [(5, 5), (3, 8), (7,)]
    ours = train(lambda p: WaveOptimizer(p, 0.01, weight_decay=0.1, betas=(0.9, 0.99)), shapes, 20)
    plain = train(lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1, betas=(0.9, 0.99)), shapes, 20)
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_moments_in_the_gradients_subspace_are_small_and_at_full_rank_adamw_of_rotated_coordinates() -> None:
    optimizers: list[WaveOptimizer] = []

    def low_rank(p: list[Tensor]) -> WaveOptimizer:
        optimizers.append(WaveOptimizer(p, 0.05, side="gradient", rank=2, every=3, weight=1.0))
        return optimizers[-1]

    shapes = [(4, 9), (9, 4)]
    start, end = train(low_rank, shapes, 0), train(low_rank, shapes, 40)
    moments = [optimizers[-1].state[p]["first"].shape for p in optimizers[-1].param_groups[0]["params"]]
    assert moments == [(2, 9), (9, 2)]
    torch.manual_seed(0)
    _, targets = [drawn(*s) for s in shapes], [drawn(*s) for s in shapes]
    for first, last, target in zip(start, end, targets, strict=True):
        assert (last - target).norm() < 0.9 * (first - target).norm()


def test_gradient_bases_are_of_the_shorter_side() -> None:
    for shape in ((4, 9), (9, 4)):
        gradient = drawn(*shape)
        U, S, Vh = torch.linalg.svd(gradient, full_matrices=False)
        best = U[:, :2] @ S[:2].diag() @ Vh[:2]
        torch.testing.assert_close(project(gradient, gradient_basis(gradient, 2)), best)


def test_muons_direction_is_near_an_orthogonal_matrix_and_near_torchs() -> None:
    for shape in ((6, 20), (20, 6)):
        values = torch.linalg.svdvals(orthogonalised(drawn(*shape)))
        assert 0.6 < values.min() <= values.max() < 1.3
    ours = train(lambda p: WaveOptimizer(p, 0.01, base="muon", weight_decay=0.1), [(6, 20)], 10)[0]
    plain = train(lambda p: torch.optim.Muon(p, 0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"), [(6, 20)], 10)[
        0
    ]
    assert (ours - plain).norm() < 0.02 * (plain - train(lambda p: torch.optim.SGD(p, 0), [(6, 20)], 0)[0]).norm()


def test_angles_and_vectors_do_not_decay_and_angles_have_their_rate() -> None:
    config = replace(ARMS["positions"], optimizer=OptimizerConfig(base="muon", weight_decay=0.1, angle_lr=0.5))
    model = WaveGPT(config, torch.arange(V))
    groups = {group["name"]: group for group in parameter_groups(model, config.optimizer)}
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in groups["angles"]["params"]} == {"embedding.phase", "embedding.omega"}
    assert groups["angles"]["weight_decay"] == groups["vectors"]["weight_decay"] == 0
    assert groups["angles"]["lr"] == 0.5
    assert groups["hidden"]["base"] == "muon"
    assert {groups[name]["base"] for name in ("tables", "vectors", "angles")} == {"adamw"}
    assert {names[id(p)] for p in groups["tables"]["params"]} == {
        "head.weight", "embedding.scale_logits", "embedding.project.weight",
    }  # fmt: skip
    assert sum(len(group["params"]) for group in groups.values()) == len(list(model.parameters()))


CHOICES: dict[str, dict[str, Any]] = {
    "adamw": {},
    "muon": {"base": "muon"},
    "sgd": {"base": "sgd", "lr": 0.1},
    "sgd outside": {"base": "sgd", "lr": 0.1, "lr_inside": False},
    "weight": {"project": ProjectConfig(side="weight", rank=0.25, every=2)},
    "gradient": {"project": ProjectConfig(side="gradient", rank=4, every=2, weight=1.0)},
    "muon gradient": {"base": "muon", "project": ProjectConfig(side="gradient", rank=4, every=2)},
    "source": {"base": "sgd", "lr": 0.1, "project": ProjectConfig(side="weight", every=1)},
}


@pytest.mark.parametrize("choice", CHOICES)
def test_a_state_that_is_saved_and_loaded_goes_on_to_the_bit(choice: str) -> None:
    config = replace(ARMS["wave"], optimizer=OptimizerConfig(**CHOICES[choice]))
    ids = some_ids(2, 9)

    def some_steps(model: WaveGPT, optimizer: torch.optim.Optimizer, n: int) -> None:
        for _ in range(n):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()).backward()
            optimizer.step()

    torch.manual_seed(0)
    model = WaveGPT(config, torch.arange(V))
    optimizer = build_optimizer(model)
    some_steps(model, optimizer, 3)
    other = WaveGPT(config, torch.arange(V))
    other.load_state_dict(model.state_dict())
    resumed = build_optimizer(other)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    some_steps(model, optimizer, 3)
    some_steps(other, resumed, 3)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_the_optimizer_of_an_arm() -> None:
    model = WaveGPT(ARMS["wave"], torch.arange(V))
    assert type(build_optimizer(model)) is torch.optim.AdamW
    source = build_optimizer(model, preset("source/full_physics").optimizer)
    assert type(source) is WaveNativeOptimizer
    assert source.defaults["weight"] == 0.7


def test_sharded_parameters_are_refused_where_matrices_must_be_whole() -> None:
    from torch.distributed.tensor import DTensor

    sharded = nn.Parameter(torch.randn(4, 4))
    assert hasattr(DTensor, "placements")
    sharded.placements = ()  # as a DTensor has
    WaveOptimizer([sharded], 0.1)
    with pytest.raises(ValueError, match="sharded"):
        WaveNativeOptimizer([sharded], 0.1)
