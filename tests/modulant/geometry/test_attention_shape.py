"""Figures of attention against closed forms and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy as scipy_entropy
from torch import Tensor

from modulant.geometry import attention_shape as shape

T = 12


def softmax(*sizes: int, causal: bool = True, seed: int = 0, scale: float = 3.0) -> Tensor:
    scores = scale * torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    if causal:
        scores = scores.masked_fill(~shape.visible_keys(sizes[-1], True), -torch.inf)
    return scores.softmax(-1)


def apart(n: int) -> Tensor:
    place = torch.arange(n, dtype=torch.float64)
    return (place[:, None] - place).abs()


def test_visible_keys_are_those_of_a_mask() -> None:
    assert shape.visible_keys(5, True).sum(-1).tolist() == [1, 2, 3, 4, 5]
    assert shape.visible_keys(5, True, 3).sum(-1).tolist() == [1, 2, 3, 3, 3]
    assert shape.visible_keys(5, False).sum() == 25
    assert shape.visible_keys(5, False, 1).sum(-1).tolist() == [2, 3, 3, 3, 2]


def test_entropies_are_scipys() -> None:
    weights = softmax(4, T, T)
    np.testing.assert_allclose(shape.entropy(weights), scipy_entropy(weights.numpy(), axis=-1), atol=1e-14)
    rest = weights[..., 3:, 1:].numpy()
    mine = shape.entropy_without(weights, 0)[..., 3:]
    np.testing.assert_allclose(mine, scipy_entropy(rest / rest.sum(-1, keepdims=True), axis=-1), atol=1e-13)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("key", [0, 5, T - 1])
def test_an_entropy_is_that_of_the_sink_and_that_of_the_rest(scale: float, key: int) -> None:
    weights = softmax(8, T, T, causal=False, scale=scale)
    s = weights[..., key]
    rest = torch.nan_to_num(shape.entropy_without(weights, key))
    both = shape.entropy(torch.stack([s, 1 - s], -1))
    assert (shape.entropy(weights) - (both + (1 - s) * rest)).abs().max() < 1e-12


def test_uniform_causal_attention() -> None:
    visible = shape.visible_keys(T, True)
    uniform = shape.uniform_attention(visible).expand(3, T, T)
    ones = shape.normalised_entropy(uniform, visible)
    assert ones[:, 0].isnan().all()  # one key
    torch.testing.assert_close(ones[:, 1:], torch.ones(3, T - 1, dtype=torch.float64))
    rest = shape.normalised_entropy_without(uniform, visible, 0)
    assert rest[:, :2].isnan().all()
    torch.testing.assert_close(rest[:, 2:], torch.ones(3, T - 2, dtype=torch.float64))
    assert shape.head_divergence(uniform, visible)[:, 1:].abs().max() < 1e-15
    centroid = shape.circular_centroid(uniform)
    torch.testing.assert_close(shape.phase_synchrony(centroid), torch.ones(T, dtype=torch.float64))
    n = torch.arange(1, T + 1, dtype=torch.float64)
    known = (math.pi * n / T).sin().abs() / (n * math.sin(math.pi / T))
    torch.testing.assert_close(centroid.abs()[0], known, atol=1e-12, rtol=0)
    assert known[0] == 1
    # ⟨i − j⟩ = i/2
    distance = shape.relative_distance(uniform, visible, apart(T))
    torch.testing.assert_close(distance[0, 1:], torch.full((T - 1,), 0.5).double())


@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 4), (False, None), (False, 2)])
def test_spread_is_the_sd_of_positions(causal: bool, window: int | None) -> None:
    visible = shape.visible_keys(T, causal, window)
    weights = softmax(3, T, T, causal=False).where(visible, 0.0)
    weights /= weights.sum(-1, keepdim=True)
    place, count = np.arange(T), visible.sum(-1).numpy()
    even = shape.relative_spread(shape.uniform_attention(visible), visible).numpy()
    assert np.isnan(even[0]) == causal  # one key
    for query in range(1, T):
        assert even[query] == pytest.approx(math.sqrt((count[query] + 1) / (12 * (count[query] - 1))), abs=1e-12)
        own = weights[1, query].numpy()
        sd = np.sqrt(np.average((place - own @ place) ** 2, weights=own))
        found = float(shape.relative_spread(weights, visible)[1, query])
        assert found == pytest.approx(sd / (count[query] - 1), abs=1e-12)
    ends = torch.zeros(1, T, dtype=torch.float64)
    ends[0, 0] = ends[0, -1] = 0.5
    assert float(shape.relative_spread(ends, torch.ones(1, T, dtype=torch.bool))) == pytest.approx(0.5)
    assert float(shape.relative_spread(torch.eye(T).double(), shape.visible_keys(T, False)).max()) < 1e-7


def test_raw_entropy_of_uniform_attention_grows_with_length() -> None:
    means = [float(shape.entropy(shape.uniform_attention(shape.visible_keys(n, True))).mean()) for n in (5, 12, 64)]
    assert means == pytest.approx([0.96, 1.67, 3.21], abs=0.01)


def test_half_on_itself_and_half_on_the_first_looks_coherent() -> None:
    row = torch.zeros(1, T, dtype=torch.float64)
    row[0, 0] = row[0, -1] = 0.5
    assert float(shape.circular_centroid(row).abs()) == pytest.approx(math.cos(math.pi / T))  # 0.966


def test_divergence_is_scipys_jensen_shannon() -> None:
    weights = softmax(2, T, T)
    ours = shape.head_divergence(weights, shape.visible_keys(T, True)).mean(0)[1:]
    theirs = jensenshannon(weights[0].numpy(), weights[1].numpy(), axis=-1) ** 2 / math.log(2)
    np.testing.assert_allclose(ours, theirs[1:], atol=1e-13)


def test_heads_that_share_no_key_have_a_divergence_of_one() -> None:
    weights = torch.eye(4, dtype=torch.float64)[:, None].expand(4, 4, 4).contiguous()
    visible = shape.visible_keys(4, False)
    torch.testing.assert_close(shape.head_divergence(weights, visible).mean(0), torch.ones(4, dtype=torch.float64))
    assert shape.head_divergence(weights[:1], visible).isnan().all()  # one head


def test_distance_is_a_share_of_the_farthest_visible_key() -> None:
    visible = shape.visible_keys(6, False, 2)
    weights = torch.zeros(6, 6, dtype=torch.float64)
    weights[torch.arange(6), (torch.arange(6) + 2) % 6] = 1
    assert shape.relative_distance(weights, visible, apart(6))[:4].tolist() == [1, 1, 1, 1]
    assert shape.relative_distance(torch.eye(6).double(), visible, apart(6)).tolist() == [0] * 6


@pytest.mark.parametrize(("causal", "window", "key"), [(True, None, 0), (True, 5, 0), (False, None, T - 1)])
def test_permuted_keys_keep_entropies_and_the_sink(causal: bool, window: int | None, key: int) -> None:
    visible = shape.visible_keys(T, causal, window)
    weights = softmax(3, 2, T, T, causal=False).where(visible, 0.0)
    weights /= weights.sum(-1, keepdim=True)
    dealt = shape.permuted_keys(weights, visible, key, torch.Generator().manual_seed(1))
    assert torch.equal(dealt[..., key], weights[..., key])
    assert (dealt[..., ~visible] == 0).all()
    assert torch.equal(dealt.sort(-1).values, weights.sort(-1).values)
    assert not torch.equal(dealt, weights)
    moved = (dealt != weights).float().mean((0, 1, 2))
    assert (moved[[i for i in range(T) if i != key]] > 0).all()  # no other key is left out


def test_dirichlet_weights_are_spread_evenly_over_distributions() -> None:
    visible = shape.visible_keys(6, True)
    drawn = shape.dirichlet_attention(visible, (20_000,), torch.Generator().manual_seed(0))
    assert (drawn[:, ~visible] == 0).all()
    torch.testing.assert_close(drawn.sum(-1), torch.ones(20_000, 6, dtype=torch.float64))
    n = torch.arange(1.0, 7.0).double()
    # Of Dirichlet(1) over n: mean 1/n, variance (n − 1) / (n² (n + 1)).
    torch.testing.assert_close(drawn[..., 0].mean(0), 1 / n, atol=0.01, rtol=0)
    torch.testing.assert_close(drawn[..., 0].var(0), (n - 1) / (n**2 * (n + 1)), atol=0.003, rtol=0)


def test_a_sink_takes_its_share_where_it_is_visible() -> None:
    visible = shape.visible_keys(6, True, 3)
    weights = shape.with_sink(shape.uniform_attention(visible), visible, 0, 0.6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, dtype=torch.float64))
    assert weights[2, 0] == pytest.approx(0.6 + 0.4 / 3)
    assert weights[4].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 1 / 3, 0])


def test_a_sink_with_noise_is_synchronous() -> None:
    """0.6 on the first token and noise beside it: heads agree on a phase that says nothing."""
    visible = shape.visible_keys(T, True)
    noise = shape.dirichlet_attention(visible, (200, 9), torch.Generator().manual_seed(3))
    weights = shape.with_sink(noise, visible, 0, 0.6)
    assert float(shape.phase_synchrony(shape.circular_centroid(weights)).mean()) > 0.98
