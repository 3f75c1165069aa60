"""Wave embeddings against their equations."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.wavegpt.arms import V, model_of, small, some_ids
from wavegpt import AnnealConfig, EmbeddingConfig, WaveConfig, WaveGPT, preset
from wavegpt.embedding import WaveEmbedding, frequencies, observation_times


def embedding_of(about: EmbeddingConfig, d: int = 16) -> WaveEmbedding:
    config = WaveConfig(vocab_size=V, d_model=d, heads=2, layers=1, embedding=about)
    embedding = WaveGPT(config, torch.randperm(V)).double().embedding
    assert isinstance(embedding, WaveEmbedding)
    return embedding


def source_embedding() -> WaveEmbedding:
    return embedding_of(preset("source/interference").embedding)


def test_frequencies_are_roots_of_ranks_or_lie_evenly_between_bounds() -> None:
    ranks = torch.tensor([3, 0, 1, 2])
    assert frequencies(ranks, None).tolist() == pytest.approx([2, 1, 2**0.5, 3**0.5])
    bounded = frequencies(ranks, (0.1, 3.0))
    assert bounded[[1, 0]].tolist() == pytest.approx([0.1, 3.0])
    assert bounded[2].log().item() == pytest.approx(math.log(0.1) + math.log(30) / 2)
    assert frequencies(ranks, (0.1, 3.0), "constant").unique().numel() == 1


def test_the_source_state_has_its_equation_and_one_norm_for_all_tokens() -> None:
    embedding = source_embedding()
    ids, t = torch.tensor([[7]]), torch.tensor([[5]])
    state = embedding.state(ids, t).flatten()
    n = torch.arange(1, 5).double()[:, None]
    angle = math.tau * n * math.sqrt(8) + embedding.phase[7] + 5 * embedding.omega
    cosines, sines = (angle.cos() / n).flatten(), (angle.sin() / n).flatten()
    torch.testing.assert_close(state, torch.cat([cosines, sines]), atol=1e-12, rtol=0)
    norms = embedding.state(None, None).norm(dim=-1)
    torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(48 * (1 / n**2).sum())))


def test_multiplied_harmonics_are_powers_of_the_fundamental() -> None:
    embedding = embedding_of(EmbeddingConfig(waves=5, harmonics=4, phase_init="uniform", amplitude="fixed"))
    real, imaginary = embedding.state(None, None).unflatten(-1, (2, 4, 5)).unbind(1)
    z = torch.complex(real, imaginary) * torch.arange(1, 5)[:, None]
    for n in range(2, 5):
        torch.testing.assert_close(z[:, n - 1], z[:, 0] ** n)


@given(turn=st.integers(-3, 3), seed=st.integers(0, 100))
def test_two_pi_and_the_gauge_change_nothing(turn: int, seed: int) -> None:
    """φ + 2πk; and φ_w + c_w, undone by a rotation of the projection."""
    torch.manual_seed(seed)
    embedding = source_embedding()
    before = embedding.rows()
    with torch.no_grad():
        embedding.phase.add_(math.tau * turn)
        torch.testing.assert_close(embedding.rows(), before)
        c = torch.randn(48, dtype=torch.float64)
        embedding.phase.add_(c)
        cosines, sines = embedding.project.weight.unflatten(-1, (2, 4, 48)).unbind(1)
        cos, sin = c.cos(), c.sin()
        turned = torch.stack([cosines * cos - sines * sin, cosines * sin + sines * cos], dim=1)
        embedding.project.weight.copy_(turned.flatten(1))
    torch.testing.assert_close(embedding.rows(), before)


def test_masses() -> None:
    ranks = torch.randperm(V)
    config = WaveConfig(vocab_size=V, d_model=16, heads=2, layers=1)
    used = {}
    for mass in ("rank", "id", "shuffled", "reversed", "constant", "learned"):
        torch.manual_seed(3)
        model = WaveGPT(replace(config, embedding=EmbeddingConfig(mass=mass)), ranks)
        used[mass] = model.embedding.ranks
    assert torch.equal(used["rank"], ranks)
    assert torch.equal(used["id"], torch.arange(V))
    assert torch.equal(used["reversed"], V - 1 - ranks)
    assert not torch.equal(used["shuffled"], ranks)
    assert torch.equal(used["shuffled"].sort().values, torch.arange(V))
    torch.manual_seed(3)
    again = WaveGPT(replace(config, embedding=EmbeddingConfig(mass="shuffled")), ranks)
    assert torch.equal(again.embedding.ranks, used["shuffled"])


def test_shuffling_changes_no_other_initial_weight() -> None:
    config = WaveConfig(vocab_size=V, d_model=16, heads=2, layers=1)
    models = []
    for mass in ("rank", "shuffled"):
        torch.manual_seed(3)
        models.append(WaveGPT(replace(config, embedding=EmbeddingConfig(mass=mass)), torch.arange(V)))
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("ranks", [None, torch.zeros(V, dtype=torch.long), torch.arange(V - 1)])
def test_ranks_are_needed_and_checked(ranks: torch.Tensor | None) -> None:
    with pytest.raises(ValueError, match="ranks"):
        WaveGPT(WaveConfig(vocab_size=V, d_model=16, heads=2), ranks)


def test_phases_stay_exact_in_a_large_vocabulary_in_16_bits() -> None:
    size, waves = 50_257, 4
    about = replace(preset("source/interference").embedding, waves=waves, phase_init="zero")
    config = WaveConfig(vocab_size=size, d_model=8, heads=2, layers=1, embedding=about)
    embedding = WaveGPT(config).embedding.to(torch.bfloat16)
    assert isinstance(embedding, WaveEmbedding)
    ids = torch.arange(0, size, 97)[None]
    with torch.autocast("cpu", torch.bfloat16):
        state = embedding.state(ids, torch.zeros_like(ids))
    exact = (math.tau * 4 * (ids[0] + 1).double().sqrt()).sin() / 4
    assert (state[0, :, -1] - exact).abs().max() < 1e-3


def test_observation_times_span_the_slowest_turn() -> None:
    times = observation_times(EmbeddingConfig(), V)
    assert len(times) == 48
    assert times[[0, -1]].tolist() == pytest.approx([1 / 3, math.tau / 0.1])


def test_annealing_mixes_before_the_norm() -> None:
    about = EmbeddingConfig(waves=4, harmonics=2, anneal=AnnealConfig(steps=10))
    embedding = embedding_of(about)
    ids, t = some_ids(1, 4), torch.arange(4)[None]
    waves, table = embedding.project(embedding.state(ids, None)), embedding.table(ids)
    for r in (0.0, 0.3, 1.0):
        mixed = embedding.norm((1 - r) * waves + r * table)
        torch.testing.assert_close(embedding(ids, t, r, None), mixed)
        torch.testing.assert_close(embedding(ids, t, torch.tensor(r, dtype=torch.float64), None), mixed)


def test_both_paths_of_annealing_have_positions_unless_it_is_the_source() -> None:
    """At r = 1 the source's embedding does not depend on the position."""
    ids = torch.tensor([[4, 4]])
    for position, differ in ((True, True), (False, False)):
        anneal = AnnealConfig(steps=10, position=position)
        embedding = embedding_of(EmbeddingConfig(waves=4, position="phase", phase_init="uniform", anneal=anneal))
        first, second = embedding(ids, torch.tensor([[0, 1]]), 1.0, None)[0]
        assert torch.equal(first, second) is not differ


def test_rows_of_the_vocabulary_are_what_tokens_get() -> None:
    """A batch larger than the vocabulary takes each row once; the result is the same."""
    embedding = model_of(small(WaveConfig())).embedding
    few, many = some_ids(1, 5), some_ids(4, 20)
    many[0, :5] = few[0]
    torch.testing.assert_close(
        embedding(many, torch.arange(20)[None], 0.0, None)[0, :5], embedding(few, torch.arange(5)[None], 0.0, None)[0]
    )


def test_the_factorised_table_has_as_many_parameters_as_the_waves() -> None:
    sizes = {"vocab_size": 1024, "d_model": 96, "heads": 4, "layers": 1}
    counts = [
        WaveGPT(WaveConfig(**sizes, embedding=EmbeddingConfig(kind=kind)), torch.arange(1024)).parameter_counts()
        for kind in ("wave", "factorised")
    ]
    assert counts[1]["embedding"] == pytest.approx(counts[0]["embedding"], rel=0.01)
    assert counts[0]["other"] == counts[1]["other"]
