"""AlphaWindow: the largest movement over the window, and rest only once the window is full."""

from collections.abc import Callable

import pytest
import torch

from modulant.metrics import AlphaWindow


def test_rest_is_a_full_window_in_which_no_alpha_moved_beyond_the_tolerance() -> None:
    window = AlphaWindow(window=3, tolerance=0.0101)
    seen = []
    for value in (0.10, 0.20, 0.21, 0.21, 0.20):
        window.update(torch.tensor([[0.3, value], [0.3, 0.3]]))
        seen.append((round(window.compute().item(), 4), window.converged))
    assert seen == [(0.0, False), (0.1, False), (0.11, False), (0.01, True), (0.01, True)]


def test_slow_drift_back_and_forth_counts_by_its_range_not_its_ends() -> None:
    window = AlphaWindow(window=3, tolerance=0.01)
    for value in (0.1, 0.2, 0.1):
        window.update(torch.full((1, 1), value))
    assert not window.converged


def converged(alphas: torch.Tensor, rate: float | torch.Tensor, every: int = 10) -> bool:
    """Whether a window of 20 checks ends in rest: α and rate by step, dα/dθ is 1, and tolerance is no obstacle."""
    window = AlphaWindow(window=20, tolerance=1.0)
    rates = torch.as_tensor(rate, dtype=torch.float64).expand(len(alphas))
    for step in range(0, len(alphas), every):
        window.update(
            alphas[step].view(1, -1), rates[max(0, step - every) : step].square().sum().expand(1, alphas.shape[1])
        )
    assert window.still
    return window.converged


def adam(gradient: Callable[[torch.Tensor], torch.Tensor], steps: int, rates: torch.Tensor) -> torch.Tensor:
    """One parameter by step."""
    theta = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([theta], lr=1.0, weight_decay=0.0)
    seen = []
    for step in range(steps):
        seen.append(theta.detach().clone())
        optimizer.param_groups[0]["lr"] = float(rates[step])
        theta.grad = gradient(theta.detach()).double().view(1)
        optimizer.step()
    return torch.stack(seen)


STEPS = 400
CONSTANT = torch.full((STEPS,), 1e-4, dtype=torch.float64)
TO_ZERO = 1e-4 * torch.linspace(1, 0, STEPS, dtype=torch.float64)


@pytest.mark.parametrize("rates", [CONSTANT, TO_ZERO], ids=["constant", "to zero"])
@pytest.mark.parametrize("drift", [0.0, 0.3, 1.0])
def test_nothing_converges_that_a_random_walk_of_the_same_steps_would(rates: torch.Tensor, drift: float) -> None:
    for _ in range(30):
        path = adam(lambda _: torch.randn(1) + drift, STEPS, rates)
        assert path[-191:].amax() - path[-191:].amin() < 0.02, "within any sensible tolerance"
        assert not converged(path, rates)
    walk = (torch.randn(STEPS, 1).sign() * rates[:, None]).cumsum(0)
    assert not converged(walk, rates)
    many = (torch.randn(STEPS, 12).double() * rates[:, None]).cumsum(0)
    assert not converged(many, rates)


def test_gradients_that_became_small_are_no_rest() -> None:
    # Adam remembers the first ones' size for a thousand steps, and its own steps are small meanwhile.
    scale = iter(torch.cat([torch.full((40,), 10.0), torch.full((STEPS,), 1.0)]))
    path = adam(lambda _: torch.randn(1) * next(scale), STEPS, CONSTANT)
    assert not converged(path, CONSTANT)


def test_what_settles_at_an_optimum_converges() -> None:
    exact = adam(lambda theta: theta - 3e-3, 1200, CONSTANT.new_full((1200,), 1e-4))
    assert converged(exact[-STEPS:], 1e-4)
    # With noise it stays about the optimum: steps are as long as on a walk, but lead nowhere.
    noisy = adam(lambda theta: 400 * (theta - 3e-3) + torch.randn(1), 4000, CONSTANT.new_full((4000,), 1e-4))
    found = [converged(noisy[start : start + 1500], 1e-4, every=75) for start in range(500, 2500, 100)]
    assert sum(found) >= 4


def test_what_cannot_move_has_not_converged() -> None:
    still = torch.full((STEPS, 2), 0.3)
    assert converged(still, 1e-4)
    assert not converged(still, 0.0)


def test_senseless_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="window is 1"):
        AlphaWindow(1, 0.1)
    with pytest.raises(ValueError, match="tolerance is 0"):
        AlphaWindow(3, 0.0)


def test_other_layers_begin_another_window() -> None:
    """A run may be resumed with other layers: snapshots of two shapes cannot be compared."""
    window = AlphaWindow(window=2, tolerance=1.0)
    for layers in (6, 6, 1):
        window.update(torch.full((layers, 3), 0.1))
    assert len(window.snapshots) == 1
    assert not window.still


def test_an_alpha_that_is_nan_has_not_converged() -> None:
    window = AlphaWindow(window=2, tolerance=1.0)
    for _ in range(2):
        window.update(torch.full((2, 1), torch.nan))
    assert not window.still
    assert not window.converged
