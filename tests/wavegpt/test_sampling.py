"""Sampling: filters, seeds, stops, batches of unequal prompts, and the cache beside forwarding anew."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.wavegpt.arms import ARMS, CONTEXT, V, model_of
from wavegpt import Sampling, WaveGPT, generate, stream_text
from wavegpt.sampling import drawn, filtered

GREEDY = Sampling(temperature=0)


def tokens(model: WaveGPT, prompts: list[list[int]], n: int, sampling: Sampling, **options: object) -> list[list[int]]:
    return torch.stack(list(generate(model, prompts, n, sampling, **options)), dim=1).tolist()


@pytest.fixture(scope="module")
def wave() -> WaveGPT:
    return model_of(ARMS["wave"], spread=0.3)


@given(
    k=st.integers(0, 12),
    p=st.floats(0, 1),
    least=st.floats(0, 1),
    temperature=st.floats(0.1, 5),
    seed=st.integers(0, 99),
)
def test_filters_keep_the_likeliest_and_no_more_than_asked(
    k: int, p: float, least: float, temperature: float, seed: int
) -> None:
    logits = torch.randn(3, 10, generator=torch.Generator().manual_seed(seed))
    kept = filtered(logits, Sampling(temperature=temperature, top_k=k, top_p=p, min_p=least))
    finite = kept.isfinite()
    assert bool((kept.argmax(-1) == logits.argmax(-1)).all())
    if k:
        assert finite.sum(-1).max() <= k
    shares = (logits / temperature).softmax(-1)
    assert bool((shares[finite] >= least * shares.amax(-1, keepdim=True).expand_as(shares)[finite] - 1e-6).all())
    if not k and not least:  # the smallest set that reaches p
        ordered = shares.sort(-1, descending=True).values
        for row in range(3):
            n = int(finite[row].sum())
            assert n == 1 or ordered[row, : n - 1].sum() < p + 1e-5
            assert n == 10 or ordered[row, :n].sum() >= p - 1e-5


def test_draws_have_the_softmax_as_their_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(4_000, 3)
    one = [torch.Generator().manual_seed(0)] * 4_000
    counts = drawn(logits, Sampling(temperature=1.0), one).bincount(minlength=3) / 4_000
    torch.testing.assert_close(counts, logits[0].softmax(-1), atol=0.02, rtol=0)


def test_repetition_is_penalised_in_both_signs() -> None:
    logits = torch.tensor([[2.0, -1.0, 1.0]])
    out = filtered(logits, Sampling(temperature=1.0, repetition_penalty=2.0), torch.tensor([[0, 1, 0]]))
    assert out.tolist() == [[1.0, -2.0, 1.0]]


def test_greedy_is_the_limit_of_all_ways(wave: WaveGPT) -> None:
    prompts = [[1, 2, 3]]
    greedy = tokens(wave, prompts, 10, GREEDY)
    assert tokens(wave, prompts, 10, GREEDY) == greedy
    assert tokens(wave, prompts, 10, Sampling(temperature=1e-6)) == greedy
    assert tokens(wave, prompts, 10, Sampling(top_k=1)) == greedy
    assert tokens(wave, prompts, 10, Sampling(top_p=0)) == greedy
    assert tokens(wave, prompts, 10, Sampling(min_p=1)) == greedy


def test_a_seed_repeats_and_another_differs(wave: WaveGPT) -> None:
    runs = [tokens(wave, [[1, 2, 3]], 12, Sampling(seed=seed)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1] != runs[2]
    assert all(0 <= i < V for i in runs[0][0])


@pytest.mark.parametrize("name", ["wave", "baseline", "integrated-sum", "integrated-softmax", "source/interference"])
def test_a_cache_changes_no_token_and_neighbours_none(name: str) -> None:
    model = model_of(ARMS[name], spread=0.3)
    prompts = [[1, 2, 3, 4, 5], [7, 8], [9]]
    n = CONTEXT - 5
    cached = tokens(model, prompts, n, GREEDY)
    assert tokens(model, prompts, n, GREEDY, cached=False) == cached
    assert [tokens(model, [prompt], n, GREEDY)[0] for prompt in prompts] == cached


def test_text_goes_on_beyond_the_context(wave: WaveGPT) -> None:
    long = [i % V for i in range(3 * CONTEXT)]
    for model in (wave, model_of(ARMS["fixed-sum"], spread=0.3)):
        assert len(tokens(model, [long], 2 * CONTEXT, GREEDY)[0]) == 2 * CONTEXT


def test_a_row_that_has_ended_waits_for_the_others(wave: WaveGPT) -> None:
    prompts = [[1, 2, 3], [7, 8, 9]]
    free = tokens(wave, prompts, 12, Sampling())
    stop = free[0][2]
    stopped = tokens(wave, prompts, 12, Sampling(), stop=[stop])
    first = free[0].index(stop)
    assert stopped[0][: first + 1] == free[0][: first + 1]
    assert set(stopped[0][first:]) == {stop}
    assert len(tokens(wave, prompts[:1], 12, Sampling(), stop=[stop])[0]) == first + 1


@pytest.mark.parametrize(("prompts", "said"), [([], "empty"), ([[1], []], "empty"), ([[1, V]], f"the id {V}")])
def test_prompts_are_checked(wave: WaveGPT, prompts: list[list[int]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        next(generate(wave, prompts, 1))


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"top_p is 1\.5"):
        Sampling(top_p=1.5)


@given(text=st.text(max_size=20), stop=st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_streamed_pieces_are_the_text_before_the_first_stop(text: str, stop: list[str]) -> None:
    decode = lambda ids: bytes(ids).decode(errors="replace")  # noqa: E731
    pieces = list(stream_text(iter(text.encode()), decode, stop))
    ends = [at for at in map(text.find, stop) if at >= 0]
    assert all(pieces)
    if not ends:
        assert "".join(pieces) == text
    else:
        assert not any(each in "".join(pieces) for each in stop)
        assert text.startswith("".join(pieces))


def test_streaming_ends_at_an_id() -> None:
    assert "".join(stream_text(iter([72, 105, 0, 33]), lambda ids: bytes(ids).decode(), end=[0])) == "Hi"
