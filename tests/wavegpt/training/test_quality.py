"""Bits per byte, and what a text costs without a model."""

import bz2
import math

import numpy as np
import pytest
import torch
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st

from wavegpt import WaveGPT, preset
from wavegpt.training.cost import flops_per_token
from wavegpt.training.quality import TextQuality
from wavegpt.training.references import by_frequency, references


def test_a_uniform_model_of_bytes_has_eight_bits() -> None:
    quality = TextQuality()
    for tokens in (3, 50):
        quality.update(torch.full((1, 1, tokens), math.log(256)), torch.zeros(1, tokens, dtype=torch.long), tokens)
    figures = quality.compute()
    assert float(figures["bits_per_byte"]) == pytest.approx(8)
    assert float(figures["perplexity"]) == pytest.approx(256, rel=1e-5)
    assert figures.keys() == {"bits_per_byte", "loss", "perplexity"}


def test_two_passes_are_told_apart() -> None:
    quality = TextQuality(anneals=True)
    quality.update(torch.tensor([[[0.5, 1.5]], [[2.0, 4.0]]]), torch.tensor([[3, 1]]), 8)
    figures = {name: float(value) for name, value in quality.compute().items()}
    assert (figures["loss"], figures["loss_annealed"]) == (1, 3)
    assert figures["bits_per_byte_annealed"] == pytest.approx(3 * figures["bits_per_byte"])


def test_parts_of_a_text_are_those_of_a_plain_loop() -> None:
    """Over batches of which some are shorter, and over processes, whose sums add up."""
    V, T = 23, 6
    generator = torch.Generator().manual_seed(0)
    ranks = torch.randperm(V, generator=generator)
    parts = [TextQuality(True, ranks, T), TextQuality(True, ranks, T)]  # two processes
    kept: dict[str, list[float]] = {}
    positions = ["1", "2_3", "2_3", "4_6", "4_6", "4_6"]
    for batch, length in enumerate((T, T, 4)):
        labels = torch.randint(V, (3, length), generator=generator)
        labels[1, 2:] = -100
        nats = torch.rand(2, 3, length, generator=generator) * (labels != -100)
        parts[batch % 2].update(nats, labels, 7)
        for row in range(3):
            for t in range(length if row != 1 else 2):
                decile = int(ranks[labels[row, t]]) * 10 // V + 1
                for name in (f"by_frequency/decile_{decile:02d}", f"by_position/position_{positions[t]}"):
                    kept.setdefault(f"{name}/nats_per_token", []).append(float(nats[0, row, t]))
    for name, how in parts[0]._reductions.items():
        assert how is torchmetrics.utilities.dim_zero_sum  # so that processes add up
        setattr(parts[0], name, getattr(parts[0], name) + getattr(parts[1], name))
    found = {name: float(value) for name, value in parts[0].compute().items()}
    assert {name for name in found if "/" in name} == kept.keys()
    for name, nats_of in kept.items():
        assert found[name] == pytest.approx(sum(nats_of) / len(nats_of), rel=1e-6), name
    whole = [nats for name, some in kept.items() if name.startswith("by_position") for nats in some]
    assert found["loss"] == pytest.approx(sum(whole) / len(whole), rel=1e-6)


def test_frequency_alone_by_tenth() -> None:
    frequencies = np.arange(1, 21) / 210
    decile = np.arange(20)[::-1] // 2  # id 19 is the commonest
    found = by_frequency(np.array([19, 19, 18, 0]), decile, frequencies)
    assert found["share"] == [0.75, *[0.0] * 8, 0.25]
    assert found["unigram"][0] == pytest.approx(-(2 * math.log(20 / 210) + math.log(19 / 210)) / 3)
    assert found["unigram"][1:] == [*[None] * 8, pytest.approx(math.log(210))]


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
