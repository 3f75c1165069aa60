"""Bits per byte, and what a text costs without a model."""

import bz2
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wavegpt import WaveGPT, preset
from wavegpt.training.cost import flops_per_token
from wavegpt.training.quality import TextQuality
from wavegpt.training.references import references


def test_a_uniform_model_of_bytes_has_eight_bits() -> None:
    quality = TextQuality()
    for tokens in (3, 50):
        quality.update(torch.tensor([tokens * math.log(256)]), torch.tensor(tokens), tokens)
    figures = quality.compute()
    assert float(figures["bits_per_byte"]) == pytest.approx(8)
    assert float(figures["perplexity"]) == pytest.approx(256, rel=1e-5)
    assert figures.keys() == {"bits_per_byte", "loss", "perplexity"}


def test_two_passes_are_told_apart() -> None:
    quality = TextQuality(anneals=True)
    quality.update(torch.tensor([2.0, 6.0]), torch.tensor(2), 8)
    figures = {name: float(value) for name, value in quality.compute().items()}
    assert (figures["loss"], figures["loss_annealed"]) == (1, 3)
    assert figures["bits_per_byte_annealed"] == pytest.approx(3 * figures["bits_per_byte"])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_the_text_s_own_frequencies_give_its_entropy(ids: list[int]) -> None:
    """A mark between documents, id 4, is predicted and has no byte."""
    text = np.array([*ids, 0])
    counts = np.bincount(text, minlength=5)
    shares = counts / counts.sum()
    entropy = -sum(share * math.log2(share) for share in shares if share)
    lengths = np.array([1, 1, 2, 3, 0])
    data = b"".join(b"x" * int(lengths[i]) for i in text)
    found = references(text, lengths, np.maximum(shares, 1e-300), data)
    assert found["unigram"] == pytest.approx(entropy * len(text) / len(data))
    assert found["uniform"] == pytest.approx(math.log2(5) * len(text) / len(data))
    assert found["bz2"] == 8 * len(bz2.compress(data)) / len(data)


def test_arithmetic_is_that_of_the_matrices() -> None:
    """2 a weight forward and twice that backward; RoPE's scores and weighted values are T × d each, forward."""
    d, layers, T = 16, 2, 8
    config = preset("baseline", vocab_size=30, d_model=d, layers=layers, heads=2, context=T)
    model = WaveGPT(config)
    weights = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Linear))
    assert flops_per_token(model, T) == 3 * (2 * weights + layers * 2 * 2 * T * d)
    assert model.training
