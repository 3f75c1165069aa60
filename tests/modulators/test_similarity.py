"""Agreement with people: planted cosines, shared senses, and pooling as a population's."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modulant.corpus.word_pairs import SensePairs, WordPairs
from modulant.lexicon import Lexicon
from modulators import FieldModulator, attach, load_t5, mean_embedding, stream_of, word_similarity
from modulators.similarity import Embed
from tests.runs import tiny_backbone
from tests.wordnets import Synset, write_zip

N = 12


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Lexicon:
    """word0 … word11 with a sense each, in a fan; and `many`, which has the last three as senses."""
    senses = [Synset((f"word{i}", *(("many",) if i >= N - 3 else ())), f"at {i} degrees") for i in range(N)]
    return Lexicon.load(write_zip(senses, tmp_path_factory.mktemp("fan") / "wordnet.zip"))


def fan(step: float) -> Embed:
    """A definition's number of steps as an angle: cosines fall with the difference of two numbers."""

    def embed(texts: list[str]) -> Tensor:
        angles = torch.tensor([step * int(text.split()[1]) for text in texts])
        return 3.0 * torch.stack([angles.cos(), angles.sin()], dim=1)

    return embed


def pairs(words: list[tuple[str, str]], ratings: list[float], lexicon: Lexicon, name: str = "p") -> SensePairs:
    return SensePairs.of(WordPairs(name, words, np.array(ratings)), lexicon, senses=0)


def test_planted(lexicon: Lexicon) -> None:
    """Near numbers are rated similar. Up to a half turn cosines agree; steps of nearly a whole turn say the reverse."""
    file = pairs([("word0", f"word{i}") for i in range(1, N)], [float(-i) for i in range(1, N)], lexicon)
    found = word_similarity([file], fan(2 * math.pi - 0.2), fan(0.2), trained=[1, 2], replicates=100)
    assert found["p/before"] == pytest.approx(1)  # cos(2π − x) = cos x
    assert found["p/after"] == pytest.approx(1)
    backwards = fan(math.pi / N - math.pi)  # (−1)^i cos(i π/N)
    found = word_similarity([file], backwards, fan(0.2), trained=[1, 2], replicates=100)
    assert found["p/before"] < 0.5
    assert found["p/after"] == pytest.approx(1)
    assert found["p/change"] == found["p/after"] - found["p/before"]
    assert (found["p/n"], found["p/untrained/n"], found["p/distinct/n"]) == (N - 1, N - 3, N - 1)
    assert "p/untrained/n" not in word_similarity([file], fan(0.2), replicates=10)


def test_largest_cosine_and_shared_senses(lexicon: Lexicon) -> None:
    """`many` with each word: 1 with its own senses, else by the nearest of them."""
    words = [("many", f"word{i}") for i in range(N)]
    file = pairs(words, [1.0 * min(i, N - 3) for i in range(N)], lexicon)
    assert file.shared.sum() == 3
    found = word_similarity([file], fan(0.2), replicates=10)
    assert found["p/before"] == pytest.approx(1)  # the three are tied in both columns
    assert found["p/distinct/n"] == N - 3


def test_files_by_name(lexicon: Lexicon) -> None:
    words = [("word0", f"word{i}") for i in range(1, N)]
    files = [
        pairs(words, [float(sign * i) for i in range(1, N)], lexicon, name) for name, sign in (("a", -1), ("b", 1))
    ]
    found = word_similarity(files, fan(0.2), replicates=10)
    assert (found["a/before"], found["b/before"]) == (pytest.approx(1), pytest.approx(-1))
    assert {key.split("/")[0] for key in found} == {"a", "b"}


def test_representations_that_are_not_finite(lexicon: Lexicon) -> None:
    file = pairs([("word0", f"word{i}") for i in range(1, N)], [float(i) for i in range(1, N)], lexicon)
    found = word_similarity([file], fan(0.2), lambda texts: torch.full((len(texts), 2), math.nan), replicates=10)
    assert math.isfinite(found["p/before"])
    assert all(math.isnan(found[f"p/{key}"]) for key in ("after", "after_low", "change", "change_high"))


def test_mean_embedding(tmp_path: Path) -> None:
    """Each text alone, without padding, gives the same; inside `disabled` it is the base."""
    model, tokenizer = load_t5(tiny_backbone(tmp_path / "t5"))
    handle = attach(model, FieldModulator(stream_of(model.config), initial_alpha=0.3))

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return out

    texts = [" ".join(["a small dog"] * (1 + i % 7)) + f" {i}" for i in range(140)]  # more than a batch
    embed = mean_embedding(hidden, tokenizer)
    found = embed(texts)
    for i in (0, 1, 6, 139):
        ids = tokenizer([f"summarize: {texts[i]}"], return_tensors="pt")["input_ids"]
        expected = hidden(ids, torch.ones_like(ids)).mean(1)[0]
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-5)
    with handle.disabled():
        base = embed(texts)
    assert not torch.equal(base, found)
    assert not found.requires_grad
