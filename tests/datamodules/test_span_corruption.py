"""Span corruption hides as much as T5's own code does, and loses nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.span_corruption import corrupt, noise_mask

FIRST_SENTINEL, END = 999, 1


def t5_counts(length: int) -> tuple[int, int]:
    """(hidden tokens, spans) of ``random_spans_noise_mask`` in t5/data/preprocessors.py, in its own float32."""
    density, mean_span = np.float32(0.15), np.float32(3.0)
    hidden = int(np.round(np.float32(length) * density))
    hidden = min(max(hidden, 1), length - 1)
    return hidden, max(int(np.round(np.float32(hidden) / mean_span)), 1)


def spans_of(mask: np.ndarray) -> int:
    return int((np.diff(np.concatenate([[0], mask.astype(int)])) == 1).sum())


@pytest.mark.parametrize("length", range(2, 129))
def test_counts_are_t5s(length: int) -> None:
    mask = noise_mask(length, np.random.default_rng(length))
    assert (mask.sum(), spans_of(mask)) == t5_counts(length)
    assert not mask[0]
    assert mask[-1], "kept and hidden spans take turns, a kept one first"


def test_one_token_is_hidden() -> None:
    assert noise_mask(1, np.random.default_rng(0)).tolist() == [True]


def test_masks_are_uniform() -> None:
    # Two spans of together 6 tokens: 1 + 5, 2 + 4, … 5 + 1 are equally likely.
    rng = np.random.default_rng(0)
    first = []
    for _ in range(4000):
        mask = noise_mask(40, rng)
        inside = mask[np.argmax(mask) :]
        first.append(int(np.argmin(inside)))
    counts = np.bincount(first, minlength=6)[1:]
    assert len(counts) == 5
    # expected 800 each, sd 25
    assert (np.abs(counts - 800) < 125).all()


@given(st.lists(st.integers(2, 900), min_size=1, max_size=140), st.integers(0, 2**32 - 1))
def test_source_and_target_hold_the_text(text: list[int], seed: int) -> None:
    tokens = np.array(text)
    mask = noise_mask(len(tokens), np.random.default_rng(seed))
    source, target = corrupt(tokens, mask, FIRST_SENTINEL, END)
    assert source[-1] == target[-1] == END
    hidden: dict[int, list[int]] = {}
    for token in target[:-1].tolist():
        if token > 900:
            sentinel = token
            hidden[sentinel] = []
        else:
            hidden[sentinel].append(token)
    assert list(hidden) == [FIRST_SENTINEL - i for i in range(spans_of(mask))]
    rebuilt: list[int] = []
    for token in source[:-1].tolist():
        rebuilt += hidden[token] if token > 900 else [token]
    assert rebuilt == text
    assert len(source) + len(target) == len(text) + 2 * spans_of(mask) + 2


@pytest.mark.parametrize(
    "arguments", [{"length": 0}, {"noise_density": 0.0}, {"noise_density": 1.0}, {"mean_span": 0.5}]
)
def test_bad_arguments(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="noise_mask needs length >= 1"):
        noise_mask(**{"length": 10, "rng": np.random.default_rng(0), **arguments})
