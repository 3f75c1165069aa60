"""Loss, token accuracy and exact match against plain loops in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from modulant.metrics import AnswerQuality

VOCABULARY = 11


def batches(n: int, seed: int = 0) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(logits, labels, answers): answers shorter and longer than the targets, many of them right."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for width in range(1, n + 1):
        lengths = torch.randint(1, width + 1, (6,), generator=generator)
        labels = torch.randint(2, VOCABULARY, (6, width), generator=generator)
        labels[torch.arange(6), lengths - 1] = 1
        labels[torch.arange(width) >= lengths[:, None]] = -100
        logits = 2 * torch.randn(6, width, VOCABULARY, generator=generator)
        answered = max(1, width - 1 + int(torch.randint(0, 3, (), generator=generator)))
        answers = torch.zeros(6, answered, dtype=torch.long)
        for row in range(6):
            real = labels[row][labels[row] != -100][: answers.shape[1]]
            answers[row, : len(real)] = real
            if row % 3 == 0:
                answers[row, 0] = 2 if answers[row, 0] != 2 else 3
        made.append((logits, labels, answers))
    return made


def slow(made: list[tuple[Tensor, Tensor, Tensor]]) -> dict[str, float]:
    loss = tokens = right_tokens = entries = right_entries = 0.0
    for logits, labels, answers in made:
        for row in range(len(labels)):
            target = [token for token in labels[row].tolist() if token != -100]
            for place, token in enumerate(target):
                scores = logits[row, place].double().numpy()
                loss += math.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[token]
                right_tokens += int(scores.argmax()) == token
                tokens += 1
            right_entries += answers[row].tolist()[: len(target)] == target
            entries += 1
    return {"loss": loss / tokens, "token_accuracy": right_tokens / tokens, "exact_match": right_entries / entries}


def counted(made: list[tuple[Tensor, Tensor, Tensor]]) -> AnswerQuality:
    quality = AnswerQuality()
    for batch in made:
        quality.update(*batch)
    return quality


def test_against_loops() -> None:
    made = batches(7)
    expected = slow(made)
    assert 0 < expected["exact_match"] < 1
    found = {name: float(value) for name, value in counted(made).compute().items()}
    assert found == pytest.approx(expected, rel=1e-6)  # the scores are fp32


def test_it_does_not_matter_how_entries_are_dealt() -> None:
    made = batches(6)
    whole = counted(made).compute()
    parts = [counted(made[:2]), counted(made[2:5]), counted(made[5:])]
    summed = AnswerQuality()
    for name in summed._defaults:
        setattr(summed, name, torch.stack([getattr(part, name) for part in parts]).sum())
    summed._update_count = 1
    for name, value in summed.compute().items():
        torch.testing.assert_close(value, whole[name], rtol=1e-12, atol=0)
    assert {reduction.__name__ for reduction in summed._reductions.values()} == {"dim_zero_sum"}


def test_halves_are_counted_in_fp32() -> None:
    made = [(logits.bfloat16(), labels, answers) for logits, labels, answers in batches(5)]
    assert float(counted(made).compute()["loss"]) == pytest.approx(slow(made)["loss"], rel=1e-6)


def test_what_follows_the_end_does_not_count() -> None:
    labels = torch.tensor([[5, 1, -100, -100]])
    logits = torch.zeros(1, 4, VOCABULARY)
    for answers, right in (([5, 1], 1), ([5, 1, 0, 0], 1), ([5, 1, 7, 7, 7], 1), ([5], 0), ([5, 0, 1], 0), ([1], 0)):
        quality = AnswerQuality()
        quality.update(logits, labels, torch.tensor([answers]))
        assert float(quality.compute()["exact_match"]) == right


def test_a_row_without_a_target_counts_nowhere() -> None:
    made = batches(3)
    expected = counted(made).compute()
    logits, labels, answers = made[1]
    padded = [*made, (logits, torch.full_like(labels, -100), answers)]
    logits, labels, answers = made[0]
    rows = torch.cat([labels, torch.full_like(labels, -100)])
    padded[0] = (logits.repeat(2, 1, 1), rows, answers.repeat(2, 1))
    assert counted(padded).compute() == expected


def test_nothing_counted() -> None:
    quality = AnswerQuality()
    with pytest.warns(UserWarning, match="compute"):
        assert all(value.isnan() for value in quality.compute().values())


def test_reset() -> None:
    quality = counted(batches(3))
    first = quality.compute()
    quality.reset()
    for batch in batches(3):
        quality.update(*batch)
    assert quality.compute() == first
