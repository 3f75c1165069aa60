"""AlphaWindow: the largest movement over the window, and rest only once the window is full."""

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


def test_senseless_settings_are_errors() -> None:
    with pytest.raises(ValueError, match="window is 1"):
        AlphaWindow(1, 0.1)
    with pytest.raises(ValueError, match="tolerance is 0"):
        AlphaWindow(3, 0.0)
