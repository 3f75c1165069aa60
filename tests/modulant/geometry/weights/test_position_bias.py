"""Biases by relative position: SciPy's Spearman and entropy, closed forms, and the null of permuted buckets."""

import pytest
import torch
from scipy import stats

from modulant.geometry import bias_figures, bucket_spans, permuted_figures

NEAREST = torch.tensor([0, -1, -2, -4, 1, 2, 4])
COUNTS = torch.tensor([1, 1, 2, 4, 1, 2, 4])


def biases(n: int) -> torch.Tensor:
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(0))


def test_they_are_scipys() -> None:
    bias = biases(3)
    found = bias_figures(bias, NEAREST, COUNTS)
    for head in range(3):
        b = bias[head].double()
        for side, places in (("left", [1, 2, 3]), ("right", [4, 5, 6])):
            wanted = stats.spearmanr(b[places], [-1, -2, -4]).statistic
            assert float(found[f"spearman_{side}"][head]) == pytest.approx(wanted)
        curve = b.repeat_interleave(COUNTS)
        signs = NEAREST.sign().repeat_interleave(COUNTS)
        entropy = stats.entropy(curve.softmax(0)) / torch.tensor(15.0).log()
        assert float(found["entropy"][head]) == pytest.approx(float(entropy), rel=1e-6)
        wanted = curve[signs < 0].mean() - curve[signs > 0].mean()
        assert float(found["asymmetry"][head]) == pytest.approx(float(wanted))
        assert float(found["near"][head]) == (int(b.argmax()) in (0, 1, 4))


def test_closed_forms() -> None:
    flat = bias_figures(torch.zeros(7), NEAREST, COUNTS)
    assert float(flat["entropy"]) == pytest.approx(1)
    assert float(flat["asymmetry"]) == 0
    falling = bias_figures(-NEAREST.abs().float(), NEAREST, COUNTS)
    assert [float(falling[name]) for name in ("spearman_left", "spearman_right", "near")] == [1, 1, 1]
    one_sided = bias_figures(torch.arange(4.0), NEAREST[:4], COUNTS[:4])
    assert float(one_sided["spearman_left"]) == -1
    assert one_sided["spearman_right"].isnan()
    assert one_sided["asymmetry"].isnan()


def test_spans_of_buckets() -> None:
    distances = torch.arange(-3, 3)
    spans = bucket_spans(torch.tensor([2, 2, 1, 0, 4, 4]), distances, 5)
    assert spans.tolist() == [[0, 1], [-1, 1], [-2, 2], [0, 0], [1, 2]]


def test_the_null_has_no_slope_and_keeps_its_size() -> None:
    null = permuted_figures(-NEAREST.abs().expand(4, 7).float(), NEAREST, COUNTS, 2000, 0)
    assert float(null["spearman_left"].mean()) == pytest.approx(0, abs=0.03)
    assert float(null["asymmetry"].mean()) == pytest.approx(0, abs=0.05)
    assert float(null["near"].mean()) == pytest.approx(3 / 7, abs=0.03)
    assert float(null["spearman_left"].std()) == pytest.approx(0.5 * 0.5**0.5, abs=0.03)  # 1/√2 of one head, 4 heads
    again = permuted_figures(-NEAREST.abs().expand(4, 7).float(), NEAREST, COUNTS, 2000, 0)
    assert torch.equal(null["entropy"], again["entropy"])
