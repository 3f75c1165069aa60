"""What is read from a model: weights, parts of logits, growth, packets, and a trace that is what `generate` draws."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from tests.wavegpt.arms import ARMS, CONTEXT, V, model_of, some_ids
from wavegpt import Observed, Sampling, WaveGPT, generate
from wavegpt.attention.base import Attention
from wavegpt.attention.places import places_of
from wavegpt.diagnostics.scores import scores_of, weights_of
from wavegpt.diagnostics.stability import growth, layers_of, model_growth
from wavegpt.diagnostics.trace import trace
from wavegpt.diagnostics.usage import grid, omegas, packets, rayleigh, variance_shares
from wavegpt.embedding import WaveEmbedding, observation_times


def attentions(model: WaveGPT) -> list[Attention]:
    return [block.attention for block in model.blocks]  # type: ignore[misc, union-attr]


def observed_of(model: WaveGPT, ids: Tensor) -> Observed:
    observed = Observed(with_features=True)
    with torch.no_grad():
        model(ids, observed=observed)
    return observed


@pytest.mark.parametrize("name", sorted(ARMS))
def test_weights_make_the_models_output(name: str) -> None:
    model, ids = model_of(ARMS[name], spread=0.3), some_ids()
    observed = observed_of(model, ids)
    for layer, (attention, (query, key)) in enumerate(zip(attentions(model), observed.features, strict=True)):
        block, state, places = model.blocks[layer], observed.states[layer], places_of(ids, None, None)
        with torch.no_grad():
            x = block.attention_norm(state)  # type: ignore[operator, union-attr]
            weights = weights_of(attention, query, key, places)
            mixed = weights @ attention._split(attention.value(x))
            torch.testing.assert_close(
                attention.out(mixed.to(x.dtype).transpose(1, 2).flatten(2)), attention(x, places), atol=1e-6, rtol=1e-6
            )
        assert float(weights.triu(1).abs().max()) == 0


@pytest.mark.parametrize("name", [name for name, arm in ARMS.items() if arm.attention.kind != "pure_wave"])
def test_parts_of_logits_make_the_weights(name: str) -> None:
    model, ids = model_of(ARMS[name], spread=0.3), some_ids()
    about = model.config.attention
    later = torch.ones(ids.shape[1], ids.shape[1]).triu(1).bool()
    for attention, (query, key) in zip(attentions(model), observed_of(model, ids).features, strict=True):
        with torch.no_grad():
            total = scores_of(attention, query, key).total
            weights = weights_of(attention, query, key, places_of(ids, None, None))
        if about.kind != "interference" or about.normalise == "softmax":
            expected = total.masked_fill(later, -torch.inf).softmax(-1)
        elif about.normalise == "sum":
            kept = total.masked_fill(later, 0)
            expected = kept / kept.sum(-1, keepdim=True)
        else:
            continue  # of an energy: below
        torch.testing.assert_close(weights, expected, atol=1e-6, rtol=1e-5)


def test_an_intensity_of_a_token_with_itself_is_four_times_its_own() -> None:
    model, ids = model_of(ARMS["source/interference"]), some_ids()
    for attention, (query, key) in zip(attentions(model), observed_of(model, ids).features, strict=True):
        scores = scores_of(attention, query, key)
        own = scores.total.diagonal(dim1=-2, dim2=-1)
        torch.testing.assert_close(own, 4 * scores.key[..., 0, :])


@pytest.mark.parametrize("normalise", ["softmax", "sum", "energy"])
def test_all_forms_have_the_same_parts(normalise: str) -> None:
    arm, ids = ARMS[f"fixed-{normalise}"], some_ids()
    found = []
    for impl in ("auto", "naive"):
        model = model_of(replace(arm, attention=replace(arm.attention, impl=impl)), spread=0.3)
        query, key = observed_of(model, ids).features[0]
        found.append(scores_of(attentions(model)[0], query, key))
    for fast, plain in zip(*found, strict=True):
        torch.testing.assert_close(fast, plain)


def test_shares_of_variance_sum_to_one_and_find_the_only_part() -> None:
    model, ids = model_of(ARMS["wave"], spread=0.3), some_ids()
    query, key = observed_of(model, ids).features[0]
    scores = scores_of(attentions(model)[0], query, key)
    allowed = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    cross, bias, total = variance_shares(scores, allowed)
    torch.testing.assert_close(cross + bias, total)
    logits = scores.cross + scores.key
    by_hand = sum(logits[:, 0, t, : t + 1].var(-1, correction=0).sum() for t in range(ids.shape[1]))
    torch.testing.assert_close(total[0], by_hand)
    alone = variance_shares(scores._replace(key=torch.zeros_like(scores.key)), allowed)
    torch.testing.assert_close(alone[0], alone[2])


def test_growth_of_a_linear_net_is_the_logarithm_of_its_scale() -> None:
    sigma, depth = 1.7, 5
    turn = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q

    def layers(x: Tensor) -> tuple[Tensor, ...]:
        states = []
        for _ in range(depth):
            x = sigma * x @ turn
            states.append(x)
        return tuple(states)

    found = growth(layers, torch.randn(3, 4, 6, dtype=torch.float64), 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found[-1] / depth, torch.full((3, 4), math.log(sigma), dtype=torch.float64))


@pytest.mark.parametrize("name", ["wave", "baseline", "integrated-sum", "pure_wave", "source/interference"])
def test_growth_agrees_with_finite_differences(name: str) -> None:
    model, ids = model_of(ARMS[name], spread=0.2), some_ids()
    found = model_growth(model, ids, 1, torch.Generator().manual_seed(3))
    start = observed_of(model, ids).states[0]
    v = torch.randn(start.shape, generator=torch.Generator().manual_seed(3), dtype=start.dtype)
    with torch.no_grad():
        ahead, behind = (layers_of(model, ids)(start + sign * 1e-6 * v) for sign in (1, -1))
    for layer, (a, b) in enumerate(zip(ahead, behind, strict=True)):
        size = ((a - b) / 2e-6).flatten(1).norm(dim=1).log() - v.flatten(1).norm(dim=1).log()
        torch.testing.assert_close(found[layer, :, 0], size, atol=1e-6, rtol=1e-6)


def test_uniform_angles_are_told_apart_as_often_as_alpha_says() -> None:
    angles = torch.rand(200, 50, generator=torch.Generator().manual_seed(0)) * math.tau
    low, high = binom.interval(0.999, 200, 0.05)
    assert low <= sum(rayleigh(one).p <= 0.05 for one in angles) <= high
    assert rayleigh(torch.randn(50, generator=torch.Generator().manual_seed(0))).p < 1e-4


def test_packets_are_what_the_embedding_sees() -> None:
    """Of waves with one phase and one amplitude, at the times that the model has."""
    embedding = model_of(ARMS["wave"], spread=0.3).embedding
    assert isinstance(embedding, WaveEmbedding)
    N, W = embedding.about.harmonics, embedding.about.waves
    with torch.no_grad():
        embedding.phase.copy_(embedding.phase[:, :1].expand(-1, W))
        embedding.scale_logits.copy_(embedding.scale_logits[:, :1].expand(-1, W))
        ids = torch.tensor([0, 7])
        real = embedding.state(ids, None)[:, : N * W].reshape(2, N, W).sum(1)
    torch.testing.assert_close(packets(embedding, ids, observation_times(embedding.about, V)), real.double())


def test_frequencies_before_and_after_differ_where_they_are_learned() -> None:
    learned, fixed = (model_of(ARMS[name]).embedding for name in ("learned", "wave"))
    assert isinstance(learned, WaveEmbedding)
    assert isinstance(fixed, WaveEmbedding)
    now, before = omegas(learned)
    torch.testing.assert_close(now.log() - before.log(), learned.log_omega.detach() - before.log())
    assert float((now - before).abs().max()) > 0.01
    assert torch.equal(*omegas(fixed))


def test_a_grid_is_finer_than_nyquists_limit() -> None:
    times = grid(62.8, 12.0)
    assert 12 * float(times.diff().max()) <= math.pi / 2
    assert float(times[-1]) == pytest.approx(62.8)


@pytest.mark.parametrize("name", ["wave", "baseline", "integrated-sum", "source/interference", "pure_wave_linear"])
def test_a_trace_is_what_is_generated(name: str) -> None:
    model, prompt, sampling = model_of(ARMS[name], spread=0.3), [1, 2, 3], Sampling(seed=5)
    n = CONTEXT + 4  # beyond the window
    steps = list(trace(model, prompt, n, sampling, top=4))
    tokens = [int(token) for token in generate(model, [prompt], n, sampling)]
    assert [step.token for step in steps] == tokens
    at = 6
    ids = [*prompt, *tokens[:at]]
    observed = Observed(with_features=True)
    with torch.no_grad():
        logits = model(torch.tensor([ids]), observed=observed)[0, -1]
    chances = logits.softmax(-1)
    step = steps[at]
    assert step.context == ids
    assert step.top == chances.topk(4).indices.tolist()
    assert step.probabilities == pytest.approx(chances.topk(4).values.tolist(), rel=1e-5)
    assert step.entropy == pytest.approx(float(-(chances * chances.log()).sum()), rel=1e-5)
    query, key = observed.features[-1]
    scores = scores_of(attentions(model)[-1], query, key)
    torch.testing.assert_close(torch.tensor(step.cross), scores.cross[0, :, -1].float(), atol=1e-4, rtol=1e-4)
    assert (step.key is None) == (model.config.attention.kind != "interference")
    assert (step.phasors is None) == (not observed.phasors)
    assert len(steps[-1].context) == (len(prompt) + n - 1 if model.config.attention.linear else CONTEXT)


@pytest.mark.parametrize("layer", [2, -3])
def test_a_layer_must_be_there(layer: int) -> None:
    with pytest.raises(ValueError, match=rf"layer is {layer}; the model has 2, so it must be 0 … 1"):
        next(trace(model_of(ARMS["wave"]), [1], 1, layer=layer))
