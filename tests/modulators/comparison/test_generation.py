"""Comparing both models: greedy is Hugging Face's own, draws follow the seed alone, α at 0 is the original."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_backbone
from modulant.backbones.tokenizers import load_tokenizer
from modulators import FieldModulator, LerpModulator, attach
from modulators.arguments import GenerationSettings
from modulators.comparison.generation import Comparison, GumbelSampling, compare
from modulators.comparison.page import console, differences, show
from tests.runs import tiny_backbone

PROMPTS = ["a small dog", "that burns with a low flame", "a cat"]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``compared(settings, prompts)`` of a tiny T5 with a loud modulator."""
    folder = tiny_backbone(tmp_path_factory.mktemp("t5"))
    model, tokenizer = load_backbone(folder), load_tokenizer(folder)
    torch.manual_seed(1)
    modulator = LerpModulator(stream_of(model.config), initial_alpha=0.6)
    torch.nn.init.normal_(modulator.proj.weight, std=3.0)
    handle = attach(model, modulator)

    def call(settings: GenerationSettings, prompts: list[str] = PROMPTS) -> list[Comparison]:
        inputs = dict(tokenizer([f"summarize: {prompt}" for prompt in prompts], return_tensors="pt", padding=True))
        return compare(model, tokenizer, handle, prompts, inputs, settings)

    call.model, call.tokenizer, call.handle = model, tokenizer, handle  # type: ignore[attr-defined]
    return call


def test_greedy_is_what_generate_says(compared: Any) -> None:
    rows = compared(GenerationSettings(max_new_tokens=6, next_tokens=3))
    assert [row.prompt for row in rows] == PROMPTS
    inputs = compared.tokenizer([f"summarize: {p}" for p in PROMPTS], return_tensors="pt", padding=True)
    modulated = compared.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    with compared.handle.disabled():
        original = compared.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    for name, tokens in (("original", original), ("modulated", modulated)):
        expected = compared.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        assert [getattr(row, name).text for row in rows] == expected
    assert any(row.original.text != row.modulated.text for row in rows)
    # the first token is the likeliest one, and its probability is that of its log-probability
    answer = rows[0].modulated
    assert len(answer.next) == 3
    assert answer.next[0][1] == pytest.approx(math.exp(answer.logprobs[0]), rel=1e-5)
    assert len(answer.tokens) == len(answer.logprobs) <= 6


def test_alpha_at_0_is_the_original(compared: Any) -> None:
    rows = compared(GenerationSettings(alpha_scales=(0.0, 1.0), max_new_tokens=6, next_tokens=2))
    assert [row.alpha_scale for row in rows] == [0.0, 1.0] * len(PROMPTS)
    assert all(row.modulated == row.original for row in rows if row.alpha_scale == 0)
    assert any(row.modulated != row.original for row in rows if row.alpha_scale == 1)


def test_draws_follow_the_seed_the_prompt_and_the_sample_alone(compared: Any) -> None:
    settings = GenerationSettings(temperature=1.0, samples=2, max_new_tokens=6, seed=3)
    rows = compared(settings)
    assert [(row.prompt, row.sample) for row in rows] == [(prompt, i) for prompt in PROMPTS for i in (0, 1)]
    assert compared(settings) == rows
    # in another order, and each alone: nothing of a neighbour's draw
    turned = compared(settings, PROMPTS[::-1])
    assert [row.original.text for row in sorted(turned, key=key)] == [
        row.original.text for row in sorted(rows, key=key)
    ]
    alone = [row for prompt in PROMPTS for row in compared(settings, [prompt])]
    assert [row.modulated.text for row in alone] == [row.modulated.text for row in rows]
    texts = {row.original.text for row in rows}
    assert len(texts) > 3
    assert {
        row.original.text for row in compared(GenerationSettings(temperature=1.0, samples=2, max_new_tokens=6, seed=4))
    } != texts
    # both models draw with the same numbers
    assert all(row.modulated == row.original for row in compared(GenerationSettings((0.0,), 1.0, max_new_tokens=6)))


def key(row: Comparison) -> tuple[str, int]:
    return row.prompt, row.sample


def test_draws_have_the_softmax_s_frequencies() -> None:
    """4,000 draws of 4 tokens: each frequency within 4 standard errors (0.0316 at most)."""
    scores = torch.tensor([[1.0, 0.0, -1.0, 2.0]]).expand(4000, -1)
    for temperature, top_p in ((1.0, 1.0), (0.5, 1.0), (1.0, 0.7)):
        drawn = GumbelSampling(GenerationSettings(temperature=temperature, top_p=top_p), range(4000))
        found = torch.bincount(drawn(torch.zeros(4000, 1).long(), scores).argmax(-1), minlength=4) / 4000
        expected = (scores[0] / temperature).softmax(-1)
        if top_p < 1:  # 0.644 alone is not enough, the next makes 0.881
            expected = torch.where(expected > 0.2, expected, 0.0)
            expected = expected / expected.sum()
        assert torch.allclose(found, expected, atol=4 * 0.5 / math.sqrt(4000))
        assert (found[expected == 0] == 0).all()


def test_an_adapter_has_no_alpha_to_scale(compared: Any) -> None:
    class Adapter:
        disabled = compared.handle.disabled

    with pytest.raises(ValueError, match=r"talk.alpha_scales: an adapter has no α"):
        compare(compared.model, compared.tokenizer, Adapter(), ["a"], {}, GenerationSettings(alpha_scales=(0.5,)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature is -1.0; it must be a number of at least 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"samples": 2}, "greedy answers are all equal"),
        ({"alpha_scales": ()}, "alpha_scales is empty"),
        (
            {"alpha_scales": (1.0, math.inf)},
            r"alpha_scales is \(1.0, inf\); it must be a list \(a number of at least 0 each\)",
        ),
        ({"next_tokens": -1}, "next_tokens is -1"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerationSettings(**arguments)


def test_a_page(compared: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = compared(
        GenerationSettings(alpha_scales=(0.5, 1.0), max_new_tokens=40, next_tokens=2), ["[bold]x[/]", "y" * 300]
    )
    monkeypatch.delenv("NO_COLOR", raising=False)
    for terminal, coloured in ((True, True), (False, False)):
        file = tmp_path / "page.txt"
        with file.open("w") as stream:
            monkeypatch.setattr(stream, "isatty", lambda terminal=terminal: terminal)
            monkeypatch.setenv("TERM", "xterm-256color")
            monkeypatch.setenv("COLUMNS", "72")
            show(rows, console(stream))
        text = file.read_text()
        assert ("\x1b" in text) is coloured
        assert "[bold]x[/]" in text
        if not coloured:
            assert max(map(len, text.splitlines())) <= 72
            assert not any(line != line.rstrip() for line in text.splitlines())
            assert "{+" in text
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as patch, (tmp_path / "plain.txt").open("w") as stream:
            patch.setattr(stream, "isatty", lambda: True)
            patch.setenv(name, value)
            show(rows, console(stream))
        assert "\x1b" not in (tmp_path / "plain.txt").read_text()


def test_differences_put_together_both_texts() -> None:
    old, new = ["a", " small", " dog", "gy"], ["a", " dog", "gy", " house"]
    assert differences(old, new, coloured=False).plain == "a [-small-] doggy {+house+}"
    coloured = differences(old, new, coloured=True)
    assert coloured.plain == "a small doggy house"
    assert {str(span.style) for span in coloured.spans} == {"red strike", "bold green"}


def test_a_field_modulator(tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path)
    model, tokenizer = load_backbone(folder), load_tokenizer(folder)
    handle = attach(model, FieldModulator(stream_of(model.config), expert_edim=8))
    (row,) = compare(
        model, tokenizer, handle, ["x"], dict(tokenizer(["x"], return_tensors="pt")), GenerationSettings((0.0,))
    )
    assert row.original == row.modulated


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_padded_vocabulary(temperature: float, tmp_path: Path) -> None:
    """Rows beyond the tokenizer's, as the hub's T5s have them, have a number and no text."""
    model, tokenizer = load_backbone(tiny_backbone(tmp_path)), load_tokenizer(str(tmp_path))
    model.resize_token_embeddings(len(tokenizer) + 8, mean_resizing=False)
    head = torch.zeros_like(model.shared.weight.detach())
    head[-1], head[-2] = 1000, -1000  # the score of one of them is the highest
    model.lm_head.weight = torch.nn.Parameter(head)
    handle = attach(model, FieldModulator(stream_of(model.config)))
    inputs = dict(tokenizer(PROMPTS, return_tensors="pt", padding=True))
    settings = GenerationSettings(temperature=temperature, top_p=1e-6 if temperature else 1.0, next_tokens=2)
    beyond = {f"<{token}>" for token in range(len(tokenizer), len(tokenizer) + 8)}
    for row in compare(model, tokenizer, handle, PROMPTS, inputs, settings):
        assert beyond & set(row.modulated.tokens)
        assert beyond & {token for token, _ in row.modulated.next}
        assert not any(token in row.modulated.text for token in beyond)
        assert len(row.modulated.tokens) == len(row.modulated.logprobs)
