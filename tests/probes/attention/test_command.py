"""probe.py attention: figures of tiny models of several families, a run, prompts, and what cannot be measured."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import probe
from modulant.assets import MINI
from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_config
from modulant.reports import render
from modulant.reports.run.folder import finite
from modulators import LerpModulator, save_modulator
from probes.attention import command, measure, page
from probes.attention.confidence import FIGURES, groups_of
from probes.attention.texts import EXAMPLES, PROMPTS, shuffled, wordnet_examples
from tests.pages import check_structure
from tests.probes.terrain.tokenizers import WORDS, masking_tokenizer, word_tokenizer
from tests.runs import tiny_backbone
from tests.tiny_families import build

IMAGES = ("vit",)
_WORDS = [word for word in WORDS[3:] if word.isalpha()]


def run(output: Path, model: str, *options: str) -> dict[str, Any]:
    assert probe.main(["attention", model, "--output", str(output), *options]) == 0
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


def measured(model: str, *options: str) -> dict[str, Any]:
    """The same without pages and figures."""
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    found: dict[str, Any] = json.loads(json.dumps(finite(command.measure(parser.parse_args([model, *options]))[0])))
    return found


def tiny(folder: Path, model_type: str, masks: bool = False) -> str:
    more = {} if model_type in IMAGES else {"vocab_size": len(WORDS) + 5}
    build(model_type, head=model_type in ("llama", "gpt2") or masks, **more).save_pretrained(folder)
    if model_type not in IMAGES:
        (masking_tokenizer() if masks else word_tokenizer()).save_pretrained(folder)
    return str(folder)


def texts(folder: Path, n: int = 60) -> str:
    """Lines of three to eleven words that the tokenizer knows."""
    generator = torch.Generator().manual_seed(2)
    lines = []
    for i in range(n):
        drawn = torch.randint(len(_WORDS), (3 + i % 9,), generator=generator).tolist()
        lines.append(" ".join(_WORDS[k] for k in drawn))
    (folder / "texts.txt").write_text("\n".join(lines) + "\n\n")
    return str(folder / "texts.txt")


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of it, of a Llama with random weights."""
    folder = tmp_path_factory.mktemp("random")
    run(folder / "out", tiny(folder / "model", "llama"), "--texts", texts(folder, 120))
    return folder


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_a_random_model_says_nothing_of_confidence(model_type: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MINI)  # which knows the words of the prompts
    build(model_type, vocab_size=len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = measured(str(tmp_path), "--texts", texts(tmp_path, 120))
    text = render.markdown("battery", **page.content(found), figures=[])
    said = "nothing beyond its null (confidence permuted among texts of the same length)"
    assert f"**Confidence**: {said}; 120 texts" in text
    assert f"**Confidence** of the fifteen prompts: {said}; 15 texts" in text
    assert found["figures"]["confidence/largest/p_family"] > 0.05
    for figure in FIGURES:
        assert found["figures"][f"confidence/{figure}/p_family"] >= found["figures"][f"confidence/{figure}/p"]


def test_controls_are_what_is_known_of_them(random: Path) -> None:
    figures = json.loads((random / "out" / "report.json").read_text())["figures"]
    assert figures["control/uniform/entropy"] == pytest.approx(1)
    assert figures["control/uniform/entropy_without_sink"] == pytest.approx(1)
    assert figures["control/uniform/head_sync"] == pytest.approx(1)
    assert figures["control/uniform/head_divergence"] == pytest.approx(0, abs=1e-12)
    assert figures["control/uniform/distance"] == pytest.approx(0.5)
    assert figures["control/uniform/spread"] > figures["control/dirichlet/spread"] > 0.2
    for name in ("entropy", "entropy_without_sink", "sink", "sink_rate"):
        assert figures[f"control/permuted/{name}"] == pytest.approx(figures[f"control/model/{name}"], abs=1e-12)
    assert figures["control/sink_dirichlet/sink"] > figures["control/dirichlet/sink"]
    assert figures["control/shuffled/entropy"] == pytest.approx(figures["control/model/entropy"], abs=0.01)


def test_every_figure_has_a_unit_and_a_population_or_a_reason(random: Path) -> None:
    found = json.loads((random / "out" / "report.json").read_text())
    for name, value in found["figures"].items():
        groups = {name.rsplit("/", n)[0] for n in (0, 1, 2)}
        reason = bool(groups & set(found["reasons"]))
        assert reason or (name in found["units"] and name in found["populations"] and value is not None), name
    for layer in ("layer_00", "layer_02"):
        for name in ("entropy", "entropy_without_sink", "sink", "sink_rate", "head_divergence"):
            low, high = found["intervals"][f"{layer}/{name}"]
            assert low <= found["figures"][f"{layer}/{name}"] <= high
            assert f"{layer}/{name}" in found["nulls"]
        assert f"source/{layer}/coherence" in found["figures"]
        assert f"{layer}/lens_entropy" in found["figures"]


def test_the_pages_show_every_chart(random: Path) -> None:
    page, html = ((random / "out" / name).read_text() for name in ("report.md", "report.html"))
    check_structure(html)
    for name in (
        "entropy",
        "heads",
        "source",
        "text",
        "lens",
        "lens_divergence",
        "scatter",
        "confidence",
        "positions",
        "lens_unigram",
    ):
        assert (random / "out" / "figures" / f"{name}.png").stat().st_size > 5_000
        assert f"(figures/{name}.png)" in page
        assert f'id="chart-{name}"' in html


def test_the_same_again(random: Path) -> None:
    options = ("--texts", str(random / "texts.txt"), "--only", "layers,controls")
    again = measured(str(random / "model"), *options)["figures"]
    first = json.loads((random / "out" / "report.json").read_text())["figures"]
    assert again == {name: first[name] for name in again}
    assert "control/dirichlet/head_sync" in again


def test_a_prompt_alone(random: Path, tmp_path: Path) -> None:
    found = run(tmp_path, str(random / "model"), "--prompt", "red dog eye arm happy")
    arrays = np.load(tmp_path / "attention.npz")
    weights = arrays["weights"].astype(np.float64)
    assert weights.shape == (3, 4, 5, 5)
    assert arrays["tokens"].tolist() == ["red", "dog", "eye", "arm", "happy"]
    assert arrays["sink"] == weights[:, :, 1:].mean((0, 1, 2)).argmax()
    model = AutoModelForCausalLM.from_pretrained(random / "model", attn_implementation="eager")
    ids = torch.tensor([word_tokenizer().encode("red dog eye arm happy")])
    theirs = torch.stack(model(ids, output_attentions=True).attentions)[:, 0].detach().numpy()
    np.testing.assert_allclose(weights, theirs, atol=1e-6)
    figures = found["figures"]
    raw = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(-1)
    known = (raw[..., 1:] / np.log(np.arange(2, 6))).mean((1, 2))
    for layer in range(3):
        assert figures[f"layer_0{layer}/entropy"] == pytest.approx(known[layer], abs=1e-6)
        assert figures[f"layer_0{layer}/sink"] == pytest.approx(weights[layer, :, 1:, 0].mean(), abs=1e-6)
    assert figures["confidence/coherence/r"] is None
    assert "fewer than 8 texts" in found["reasons"]["confidence"]
    assert figures["collapse/layer"] is None
    assert figures["source/collapse_layer"] == np.diff(raw.mean((1, 2))).argmin()
    assert not found["intervals"]
    assert (tmp_path / "figures" / "text.png").is_file()


def test_one_token_has_nothing_to_attend_to(random: Path) -> None:
    found = measured(str(random / "model"), "--prompt", "dog")
    assert found["figures"]["layer_00/entropy"] is None
    assert found["figures"]["layer_00/sink"] is None
    assert "no query has enough keys" in found["reasons"]["layer_00/entropy"]


@pytest.mark.parametrize("model_type", ["t5", "bert", "modernbert", "gpt2", "gemma2", "clip_text_model"])
def test_families(model_type: str, tmp_path: Path) -> None:
    name = tiny(tmp_path / "model", model_type)
    found = measured(name, "--texts", texts(tmp_path, 12))
    figures = found["figures"]
    for layer in range(3):
        assert 0 < figures[f"layer_0{layer}/entropy"] < 1 + 1e-9
    assert ("decoder/layer_00/entropy" in figures) == ("cross/layer_02/sink" in figures) == (model_type == "t5")
    if model_type in ("gpt2", "t5", "gemma2"):  # whose heads are their embeddings
        place = "decoder/layer_02" if model_type == "t5" else "layer_02"
        assert 0 < figures[f"{place}/lens_entropy"] <= math.log(len(WORDS) + 5)
        assert figures[f"{place}/lens_entropy"] == pytest.approx(-figures["next/confidence"])
        assert figures["confidence/entropy/p"] > 0
    else:
        assert figures["next/confidence"] is None
        assert figures["confidence/entropy/p"] is None
        assert "no next token" in found["reasons"]["confidence"]


def test_what_fills_masks_is_asked_for_the_last_word(tmp_path: Path) -> None:
    name = tiny(tmp_path / "model", "bert", masks=True)
    found = run(tmp_path / "out", name, "--texts", texts(tmp_path, 120))
    figures = found["figures"]
    assert found["populations"]["next/confidence"] == "120 texts, last word masked"
    assert figures["layer_02/lens_entropy"] == pytest.approx(-figures["next/confidence"])
    assert figures["layer_02/lens_divergence"] == pytest.approx(0, abs=1e-6)
    assert figures["next/unigram"] == figures["layer_02/lens_unigram"] > 0
    for name in ("embedded/lens_unigram", "layer_01/lens_entropy", "lens/commit_layer", "next/top"):
        assert found["nulls"][name]["what"] == "the same texts with their words shuffled"
        low, high = found["intervals"][name]
        assert low <= figures[name] <= high
    assert figures["confidence/entropy_last/p"] > 0
    page = (tmp_path / "out" / "report.md").read_text()
    assert "**Confidence**: nothing beyond its null" in page
    assert "| layers done |" in page
    assert "(figures/lens_unigram.png)" in page


def test_images_have_patches(tmp_path: Path) -> None:
    found = measured(tiny(tmp_path / "model", "vit"))
    assert found["inputs"].startswith("16 images of Gaussian noise")
    assert found["figures"]["layer_02/entropy"] > 0.9
    assert found["figures"]["confidence/entropy/r"] is None
    assert found["nulls"]["layer_00/entropy"]["what"] == "uniform attention"


def test_a_run_is_measured_before_and_after(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "t5")
    modulator = LerpModulator(stream_of(load_config(backbone)), n_geometric_dims=8, initial_alpha=0.9)
    torch.nn.init.normal_(modulator.proj.weight, std=9.0)
    save_modulator(modulator, tmp_path / "run" / "modulator", backbone, [1], {})
    lines = tmp_path / "texts.txt"
    lines.write_text("\n".join(PROMPTS))
    options = ("--texts", str(lines), "--only", "layers,lens,controls")
    found = run(tmp_path / "out", str(tmp_path / "run"), *options)
    figures = found["figures"]
    plain = measured(backbone, *options)["figures"]
    assert {name: figures[f"original/{name}"] for name in plain} == plain
    # The modulator changes what its layer reads.
    assert figures["difference/layer_00/entropy"] == 0
    assert figures["difference/layer_01/entropy"] != 0
    change = figures["modulated/layer_01/entropy"] - figures["original/layer_01/entropy"]
    assert figures["difference/layer_01/entropy"] == pytest.approx(change)
    low, high = found["intervals"]["difference/layer_01/entropy"]
    assert low <= figures["difference/layer_01/entropy"] <= high
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## Modulated minus original" in page
    assert "(null: no difference" in page


def test_ctrl_c_keeps_what_is_done(random: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, calls = measure.measure_pass, []

    def stop_at_the_second(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(measure, "measure_pass", stop_at_the_second)
    words = ["attention", str(random / "model"), "--texts", str(random / "texts.txt"), "--output", str(tmp_path)]
    assert probe.main(words) == 130
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["interrupted"]
    assert found["figures"]["layer_00/entropy"] > 0
    assert "Ended by Ctrl-C" in (tmp_path / "report.md").read_text()


def test_weights_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    name = tiny(tmp_path / "model", "llama")
    model = AutoModelForCausalLM.from_pretrained(name)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[0, 0] = torch.nan
    model.save_pretrained(name)
    found = measured(name, "--texts", texts(tmp_path, 12))
    assert found["figures"]["layer_00/entropy"] > 0
    for layer in ("layer_01", "layer_02"):
        assert found["figures"][f"{layer}/entropy"] is None
        assert "not finite" in found["reasons"][f"{layer}/entropy"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere/at/all"], "cannot be loaded"),
        (["mini", "--only", "norms"], "'norms' must be one of layers, collapse"),
        (["mini", "--layers", "9"], "layer 9 does not exist"),
        (["mini", "--device", "abacus"], "--device: 'abacus' is not there"),
        (["mini", "--texts", "no/such/file"], "--texts: no/such/file cannot be read as text"),
        (["mini", "--prompt", "a", "--texts", "b"], "not allowed with argument"),
    ],
)
def test_an_error_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert probe.main(["attention", *words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_tokenizer_and_texts_for_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("bert", head=False).save_pretrained(tmp_path / "bert")
    assert probe.main(["attention", str(tmp_path / "bert"), "--output", str(tmp_path / "out")]) == 2
    assert "has no tokenizer" in capsys.readouterr().err
    name = tiny(tmp_path / "vit", "vit")
    assert probe.main(["attention", name, "--prompt", "a dog", "--output", str(tmp_path / "out")]) == 2
    assert "reads images; leave out --prompt" in capsys.readouterr().err


@pytest.mark.slow
def test_examples_of_wordnet_are_sentences() -> None:
    found = wordnet_examples()
    assert len(found) == EXAMPLES == len(set(found))
    assert all(45 <= len(text) <= 90 and len(text.split()) >= 8 for text in found)
    mixed = shuffled(found, 1)
    assert [sorted(text.split()) for text in mixed] == [sorted(text.split()) for text in found]
    assert sum(a != b for a, b in zip(mixed, found, strict=True)) > 110


def test_texts_are_permuted_among_those_of_the_same_length() -> None:
    assert groups_of(torch.tensor([4] * 6 + [5] * 2 + [6] * 3 + [9] * 2 + [20])).tolist() == [
        *([0] * 6 + [1] * 2 + [2] * 3 + [3] * 2 + [4])
    ]
    assert groups_of(torch.tensor([7, 3, 9, 5, 11, 7])).tolist() == [0] * 6  # too few have the same
