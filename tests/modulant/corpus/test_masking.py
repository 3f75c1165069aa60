"""Hidden tokens of a batch: how many, which, and that whoever makes the batch again hides the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modulant.corpus.masking import Masking

SPECIAL = np.array([0, 1, 2])
MASK = 3


def masking(share: float = 0.3, seed: int = 1) -> Masking:
    return Masking(share, MASK, SPECIAL, n_tokens=50, pad=0, seed=seed)


def texts(rng: np.random.Generator, n: int) -> list[Any]:
    return [np.concatenate([[1], rng.integers(4, 50, rng.integers(1, 9)), [2]]) for _ in range(n)]


@given(st.integers(0, 1000), st.integers(1, 9), st.integers(1, 4), st.sampled_from([1, 4]))
def test_ranks_share_what_one_process_hides(seed: int, n: int, world: int, multiple: int) -> None:
    rng = np.random.default_rng(seed)
    sources, members = texts(rng, n), rng.permutation(n)
    whole = masking().batch(sources, members)
    width = whole["masked_ids"].shape[1]
    expected = {
        (int(place) // width, int(place) % width): int(target)
        for place, target in zip(whole["masked_at"], whole["masked_targets"], strict=True)
    }
    found = {}
    for rank in range(world):
        part = masking().batch(sources, members, rank, world, multiple)
        own = part["masked_ids"].shape[1]
        assert own % multiple == 0
        for place, target in zip(part["masked_at"].tolist(), part["masked_targets"].tolist(), strict=True):
            row, column = divmod(place, own)
            found[rank + world * row, column] = target
            assert part["masked_ids"][row, column] == whole["masked_ids"][rank + world * row, column]
        assert part["masked_weight"] == pytest.approx(world * whole["masked_weight"])
    assert found == expected
    for (row, column), target in expected.items():
        assert sources[row][column] == target
        assert target not in SPECIAL


def test_shares_are_berts() -> None:
    rng = np.random.default_rng(0)
    sources = texts(rng, 4000)
    batch = masking(0.15).batch(sources, np.arange(4000))
    flat, targets = batch["masked_ids"].flatten()[batch["masked_at"]], batch["masked_targets"]
    real = sum(len(row) - 2 for row in sources)
    n = len(targets)
    assert n / real == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / real) ** 0.5)
    error = 4 * (0.8 * 0.2 / n) ** 0.5
    assert float((flat == MASK).float().mean()) == pytest.approx(0.8 + 0.1 / 50, abs=error)
    assert float((flat == targets).float().mean()) == pytest.approx(0.1 + 0.1 / 50, abs=error)
    assert batch["masked_weight"] == 1 / n


def test_draws_are_of_the_batch_and_the_seed() -> None:
    sources = texts(np.random.default_rng(0), 20)
    first = masking().batch(sources, np.arange(20))
    assert first["masked_ids"].equal(masking().batch(sources, np.arange(20))["masked_ids"])
    assert not first["masked_ids"].equal(masking().batch(sources, np.arange(1, 21))["masked_ids"])
    assert not first["masked_ids"].equal(masking(seed=2).batch(sources, np.arange(20))["masked_ids"])


def test_nothing_hidden_weighs_nothing() -> None:
    batch = masking().batch([np.array([1, 2])], np.arange(1))
    assert (len(batch["masked_at"]), batch["masked_weight"]) == (0, 0.0)


def test_tokenizer_without_a_mask_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"^data\.mask_share is 0\.15, and the tokenizer of .* has no mask token"):
        Masking.of(tokenizer, 0.15, 0)
