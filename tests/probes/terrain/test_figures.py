"""Figures of embedding matrices that are known: what is there is found, and what is not there is not."""

import math

import pytest
import torch

from probes.findings import Findings
from probes.opening import Rows
from probes.terrain import vocabulary, words
from probes.terrain.charts import charts
from tests.probes.terrain.tokenizers import WORDS, word_tokenizer

MEASURES = (
    vocabulary.measure_norms,
    vocabulary.measure_angles,
    lambda rows, found: vocabulary.measure_spectrum(rows, found, 1),
    lambda rows, found: vocabulary.measure_pentachora(rows, found, 1),
    lambda rows, found: vocabulary.measure_constants(rows, found, 1),
)


def gaussian(n: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def measured(points: torch.Tensor, but: int = 0) -> Findings:
    """All figures, or all but those of constants, which follow the cosines."""
    found = Findings()
    for measure in MEASURES[: len(MEASURES) - but]:
        measure(Rows(points, torch.arange(len(points))), found)
    return found


@pytest.fixture(scope="module")
def steep() -> tuple[torch.Tensor, Findings]:
    """A Gaussian cloud with a steep spectrum and an offset."""
    points = gaussian(3000, 24) * torch.linspace(0.2, 2, 24) + 0.5
    return points, measured(points)


def test_a_gaussian_cloud_is_its_own_null(steep: tuple[torch.Tensor, Findings]) -> None:
    _, found = steep
    figures, nulls = found.figures, found.nulls
    for name in ("norm/sd", "squared_distance/cv", "pentachoron/cv", "pentachoron/cv_unit"):
        assert figures[name] == pytest.approx(nulls[name]["mean"], rel=0.05), name
    for name in ("pentachoron/ratio_covariance", "constant/0.29154", "constant/0.29514", "constant/0.19471"):
        assert figures[name] == pytest.approx(1, abs=0.05), name
    ratio = figures["spectrum/participation_ratio"]
    assert ratio is not None
    assert figures["spectrum/participation_ratio_unbiased"] == pytest.approx(ratio, rel=0.05)
    assert ratio < 0.8 * nulls["spectrum/participation_ratio"]["mean"]
    assert figures["pentachoron/cv_null_covariance"] == nulls["pentachoron/cv"]["mean"]


def test_an_isotropic_cloud_has_the_spectrum_of_its_null() -> None:
    found = Findings()
    vocabulary.measure_spectrum(Rows(gaussian(400, 60), torch.arange(400)), found, 1)
    for name, null in found.nulls.items():
        if name != "spectrum/participation_ratio_uncentred":
            assert found.figures[name] == pytest.approx(null["mean"], rel=0.1), name


def test_scale_changes_what_has_a_unit_and_rotation_nothing(steep: tuple[torch.Tensor, Findings]) -> None:
    points, before = steep
    rotation = torch.linalg.qr(gaussian(24, 24, 3)).Q
    after = measured(7 * points, but=1)
    powers = {"length": 1, "length²": 2, "length⁴": 4}
    for name, value in before.figures.items():
        factor = 7.0 ** powers.get(before.units[name], 0)
        if name in after.figures:
            assert after.figures[name] == pytest.approx(value * factor, rel=1e-3, abs=1e-6), name
    turned = measured(points @ rotation, but=1)
    # What depends on the axes: the diagonal, the sd of all entries, and noise that is drawn in other axes.
    by_axes = ("null", "ratio_diagonal", "ratio_covariance", "ratio_isotropic")
    for name, value in before.figures.items():
        if name.endswith("isotropic_centred") or not any(part in name for part in by_axes):
            assert turned.figures.get(name, value) == pytest.approx(value, rel=1e-3, abs=1e-6), name


def test_heavy_tails_lift_the_cv_above_its_null() -> None:
    lengths = torch.exp(0.6 * gaussian(3000, 1, 5))
    found = Findings()
    vocabulary.measure_pentachora(Rows(gaussian(3000, 24) * lengths, torch.arange(3000)), found, 1)
    cv, unit = found.figures["pentachoron/cv"], found.figures["pentachoron/cv_unit"]
    assert cv is not None
    assert cv > 2 * found.nulls["pentachoron/cv"]["mean"]
    # Rows of one length are those of a sphere again.
    assert unit == pytest.approx(found.nulls["pentachoron/cv_unit"]["mean"], rel=0.05)


@pytest.fixture(scope="module")
def planted() -> words.Vocabulary:
    """Digits along an arc, categories around centres, and nothing else."""
    tokenizer = word_tokenizer()
    embedding = gaussian(len(tokenizer), 32, 1)
    for digit in range(10):
        i = tokenizer.convert_tokens_to_ids(str(digit))
        embedding[i] *= 0.3
        embedding[i, :2] += 5 * torch.tensor([math.cos(digit / 6), math.sin(digit / 6)])
    for number, text in enumerate(words.CATEGORIES.values()):
        for i in tokenizer.convert_tokens_to_ids(text.split()):
            embedding[i, number + 5] += 6
    return words.Vocabulary(embedding, tokenizer)


def test_an_order_that_was_planted_is_found_and_no_other(planted: words.Vocabulary) -> None:
    found = Findings()
    curves = words.measure_order(planted, found, 1)
    figures = found.figures
    assert figures["digits/r"] == pytest.approx(-0.95, abs=0.03)
    assert figures["digits/p"] is not None
    assert figures["digits/p"] < 0.001
    assert figures["digits/adjacent_gap"] is not None
    assert figures["digits/adjacent_gap"] > 0.1
    assert figures["digits/partial_r"] == pytest.approx(-0.94, abs=0.05)
    assert figures["letters/p"] is not None
    assert figures["letters/p"] > 0.01
    means = curves["digits"]["cosine_by_distance"]
    assert len(means) == 9
    assert means == sorted(means, reverse=True)


def test_a_list_with_a_word_of_several_tokens_is_not_measured(planted: words.Vocabulary) -> None:
    found = Findings()
    curves = words.measure_order(planted, found, 1)
    assert found.figures["months/r"] is None
    assert "December = [UNK]" in found.reasons["months"]
    assert "months" not in curves


def test_lists_of_different_lengths_share_a_chart() -> None:
    curves = {name: {"cosine_by_distance": [0.5] * count, "r": -0.5} for name, count in (("digits", 9), ("months", 11))}
    (chart,) = charts({"figures": {}, "curves": {"order": curves}})
    assert chart.table.rows[0] == ["1.000", "0.5000", "0.5000"]
    assert chart.table.rows[10] == ["11.000", "–", "0.5000"]


def test_categories_that_were_planted_are_found(planted: words.Vocabulary) -> None:
    found = Findings()
    lists = words.measure_categories(planted, found, 1)
    assert list(lists) == list(words.CATEGORIES)
    assert not any("fish" in some for some in lists.values())
    assert found.figures["categories/gap"] == pytest.approx(0.53, abs=0.05)
    assert found.figures["categories/p"] == 1 / 1000
    nothing = Findings()
    noise = words.Vocabulary(gaussian(len(WORDS), 32, 8), planted.tokenizer)
    words.measure_categories(noise, nothing, 1)
    assert nothing.figures["categories/p"] is not None
    assert nothing.figures["categories/p"] > 0.05


def test_intervals_hold_the_figure_and_narrow_with_the_words(planted: words.Vocabulary) -> None:
    found = Findings()
    words.measure_order(planted, found, 1)
    words.measure_categories(planted, found, 1)
    figures = found.figures
    widths = {}
    for name in ("digits/r", "letters/r", "categories/gap"):
        low, value, high = (figures[key] for key in (f"{name}_low", name, f"{name}_high"))
        assert low is not None
        assert value is not None
        assert high is not None
        assert low < value < high
        widths[name] = high - low
    assert widths["digits/r"] < 0.2 < widths["letters/r"]  # an order that is there, and one that is not
    assert widths["categories/gap"] < 0.1


def test_means_of_lists_are_compared_without_the_mean_of_all(planted: words.Vocabulary) -> None:
    """Lists around orthogonal centres: as far apart as lists can be, and permuted ones are not."""
    found = Findings()
    words.measure_categories(planted, found, 1)
    # Eight centres of which almost all rows are: without their mean they are a simplex, with cosines of −1/7.
    assert found.figures["categories/centroid_cosine"] == pytest.approx(-1 / 7, abs=0.08)
    assert found.figures["categories/centroid_p"] is not None
    shifted = Findings()
    words.measure_categories(words.Vocabulary(planted.embedding + 3, planted.tokenizer), shifted, 1)
    for what in ("centroid_cosine", "centroid_p"):
        assert shifted.figures[f"categories/{what}"] == pytest.approx(found.figures[f"categories/{what}"], abs=1e-5)
    assert shifted.figures["categories/gap"] < 0.5 * found.figures["categories/gap"]  # type: ignore[operator]
