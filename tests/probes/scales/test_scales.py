"""probe.py scales: models whose likeness is known, random ones that have none, mini beside MiniLM, bad input."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import probe
from modulant.backbones.tokenizers import load_tokenizer
from probes.scales.matching import whole_words
from probes.scales.page import SHARED, beyond
from tests.pages import check_structure
from tests.tiny_families import build

SPECIAL = ["[PAD]", "[EOS]", "[UNK]"]
LETTERS = "abcdefghij"
WORDS = [*LETTERS, *(a + b + c for a in LETTERS for b in LETTERS for c in "xyzu"), *"0123456789"]  # 400 are words
QUICK = ("--nulls", "8", "--replicates", "100")


def save(folder: Path, model_type: str, words: list[str], embedding: torch.Tensor, prefix: str = "") -> str:
    """A tiny model with these embeddings, special tokens before them, and a tokenizer whose words carry a prefix."""
    names = {"t5": "d_model", "bert": "hidden_size", "gpt2": "n_embd"}
    width = embedding.shape[1]
    vocabulary = SPECIAL + [prefix + word for word in words]
    model = build(model_type, head=False, vocab_size=len(vocabulary) + 2, **{names[model_type]: width})
    with torch.no_grad():
        model.get_input_embeddings().weight[3 : 3 + len(words)] = embedding.float()
    model.save_pretrained(folder)
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(vocabulary)}, "[UNK]"))
    inner.pre_tokenizer = Whitespace()
    special = {"pad_token": "[PAD]", "eos_token": "[EOS]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    return str(folder)


def cloud(n: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def compare(output: Path, small: str, large: str, *options: str) -> dict[str, Any]:
    assert probe.main(["scales", small, large, "--output", str(output), *QUICK, *options]) == 0
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Two models of unrelated random weights; the second has the words in another order, with a mark."""
    folder = tmp_path_factory.mktemp("random")
    words = list(reversed(WORDS))
    small = save(folder / "small", "bert", WORDS, cloud(len(WORDS), 32, 0))
    large = save(folder / "large", "gpt2", words, cloud(len(WORDS), 64, 1), prefix="▁")
    return folder / "out", compare(folder / "out", small, large)


def test_random_weights_have_nothing_in_common(random: tuple[Path, dict[str, Any]]) -> None:
    folder, found = random
    assert found["matched"] == {
        "how": "words", "noun": "words", "shared": 400, "dropped": 0, "anchors": 300, "held_out": 100,
    }  # fmt: skip
    assert not any(beyond(found, name) for name in SHARED)
    assert f"Nothing is beyond its null**: none of {len(SHARED)} figures" in (folder / "report.md").read_text()
    figures = found["figures"]
    assert figures["cka/unbiased"] == pytest.approx(0, abs=3 / 100)
    assert figures["cka/biased"] == pytest.approx(figures["cka/biased_null"], abs=0.05)
    assert figures["cka/biased_null"] > 0.2
    assert figures["ridge/r2"] == pytest.approx(0, abs=0.05)
    assert figures["neighbours/chance"] == pytest.approx(10 / 99)


def test_every_figure_has_a_null_an_interval_or_a_population(random: tuple[Path, dict[str, Any]]) -> None:
    folder, found = random
    figures = found["figures"]
    for name in SHARED:
        assert figures[f"{name}_low"] <= figures[f"{name}_high"]
        assert found["nulls"][name]["n"] == 8
        assert figures[f"{name}_null"] == pytest.approx(found["nulls"][name]["mean"])
    for name, value in figures.items():
        reason = name in found["reasons"] or name.partition("/")[0] in found["reasons"]
        assert reason or (value is not None and name in found["populations"]), name
    assert "digits" in found["reasons"]  # those of the second have a mark that its tokenizer does not add
    page, html = ((folder / name).read_text() for name in ("report.md", "report.html"))
    check_structure(html)
    for name in ("fits", "cosines", "pairs"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 5_000
        assert f"(figures/{name}.png)" in page
        assert f'id="chart-{name}"' in html


def test_the_same_model_is_found_whole(tmp_path: Path) -> None:
    name = save(tmp_path / "model", "t5", WORDS, cloud(len(WORDS), 32, 0))
    found = compare(tmp_path / "out", name, name)
    figures = found["figures"]
    assert found["matched"]["how"] == "ids"
    assert figures["tokens/shared"] == len(WORDS)
    for one in (
        "rotation/cosine", "rotation/r2", "rotation_scaled/r2", "rotation_thin/cosine", "ridge/r2", "ridge_back/r2",
        "cka/unbiased", "cka/biased", "rsa/spearman", "neighbours/overlap", "volumes/r", "volumes/r_partial",
        "rotation_scaled/scale", "source/rotation/cosine", "digits/r",
    ):  # fmt: skip
        assert figures[one] == pytest.approx(1, abs=1e-9), one
    assert figures["residual/share"] == pytest.approx(0, abs=1e-12)
    assert figures["residual/participation_ratio"] is None
    assert "rounding errors" in found["reasons"]["residual/participation_ratio"]
    assert figures["rsa/p"] == 1 / 1000


def test_leading_axes_turned_are_found_and_the_way_back_has_what_they_hold(tmp_path: Path) -> None:
    spectrum = torch.linspace(3, 0.3, 64, dtype=torch.float64)
    large = cloud(len(WORDS), 64, 0) * spectrum
    turned = large[:, :32] @ torch.linalg.qr(cloud(32, 32, 1)).Q * 0.5
    names = save(tmp_path / "s", "bert", WORDS, turned), save(tmp_path / "l", "gpt2", WORDS, large)
    found = compare(tmp_path / "out", names[1], names[0], "--only", "fits", "--match", "words")  # the larger first
    figures = found["figures"]
    assert found["swapped"]
    assert "the two were swapped" in (tmp_path / "out" / "report.md").read_text()
    assert found["models"]["small"]["dimensions"] == 32
    assert figures["ridge/r2"] == pytest.approx(1, abs=1e-6)
    held = float(spectrum[:32].square().sum() / spectrum.square().sum())
    assert figures["ridge_back/r2"] == pytest.approx(held, abs=0.03)
    assert figures["rotation_scaled/scale"] == pytest.approx(0.5, abs=0.02)
    assert figures["rotation/cosine"] > 0.95
    assert beyond(found, "rotation/cosine")
    assert figures["ridge/r2_low"] <= figures["ridge/r2"] <= figures["ridge/r2_high"]


@pytest.mark.parametrize(
    ("part", "groups"),
    [("pairs", {"cka", "rsa", "neighbours"}), ("volumes", {"volumes", "source"}), ("digits", {"digits"})],
)
def test_parts_alone(part: str, groups: set[str], tmp_path: Path) -> None:
    words = list(reversed(WORDS))
    names = [
        save(tmp_path / str(i), "bert", some, cloud(410, 32, i)) for i, some in enumerate((WORDS[10:], words[:-10]))
    ]
    found = compare(tmp_path / "out", *names, "--only", part)
    assert {name.partition("/")[0] for name in found["figures"]} == groups | {"words"}
    page = (tmp_path / "out" / "report.md").read_text()
    assert ("Nothing is beyond its null" in page) == (part != "digits")
    assert (tmp_path / "out" / "report.html").is_file()


def test_rows_of_zeros_and_of_nan_are_left_out(tmp_path: Path) -> None:
    rows = cloud(len(WORDS), 32, 0)
    rows[20], rows[30, 4] = 0, torch.nan
    names = [save(tmp_path / str(i), "bert", WORDS, some) for i, some in enumerate((rows, cloud(len(WORDS), 32, 1)))]
    found = compare(tmp_path / "out", *names, "--only", "fits")
    assert found["matched"]["dropped"] == 2
    assert "2 rows of zeros or without finite numbers" in (tmp_path / "out" / "report.md").read_text()


def test_words_of_each_kind_of_vocabulary() -> None:
    def words(vocabulary: list[str]) -> set[str]:
        inner = Tokenizer(WordLevel({word: i for i, word in enumerate(["[UNK]", *vocabulary])}, "[UNK]"))
        return set(whole_words(PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")))

    assert words(["▁cat", "ing", "▁a", "▁Cat", "▁c4t", "▁été"]) == {"cat", "été"}
    assert words(["Ġcat", "ing", "Ġa", "ĠÃ©tÃ©"]) == {"cat", "été"}  # letters are bytes
    assert words(["cat", "##ing", "dog", "a", "!?"]) == {"cat", "dog"}
    assert words(["cat</w>", "ing"]) == {"cat"}
    assert words(["cat", "ing"]) == {"cat", "ing"}
    assert {"navigator", "beaver"} <= whole_words(load_tokenizer("mini")).keys()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mini", "nowhere/at/all"], "cannot be loaded"),
        (["mini", "all-MiniLM-L6-v2", "--match", "ids"], "--match ids: the vocabularies of 'mini' and"),
        (["mini", "mini", "--only", "fit"], "'fit' must be one of fits, pairs"),
        (["mini", "mini", "--device", "abacus"], "--device: 'abacus' is not there"),
    ],
)
def test_an_error_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert probe.main(["scales", *words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_too_few_rows_and_images_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = WORDS[:60]
    small, large = (save(tmp_path / str(d), "bert", some, cloud(60, d, 0)) for d in (36, 64))
    build("vit", head=False).save_pretrained(tmp_path / "vit")
    capsys.readouterr()
    assert probe.main(["scales", small, large, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "share 60 tokens, of which 45 would be fitted; 36 dimensions need at least 46" in error
    assert probe.main(["scales", small, str(tmp_path / "vit"), "--output", str(tmp_path / "out")]) == 2
    assert "reads images, and has no vocabulary" in capsys.readouterr().err


def test_another_report_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"run": {}}')
    assert probe.main(["scales", "mini", "mini", "--output", str(tmp_path)]) == 2
    assert "is no output of this command" in capsys.readouterr().err
