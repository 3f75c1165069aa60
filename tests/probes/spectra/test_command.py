"""probe.py spectra: a random model has nothing beyond its nulls, a run, several texts, and what cannot be measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import probe
from modulant.backbones.families import stream_of
from modulant.backbones.t5 import load_config
from modulant.reports.run.folder import finite
from modulators import LerpModulator, save_modulator
from probes.spectra import command, reading
from tests.pages import check_structure
from tests.probes.terrain.tokenizers import WORDS, word_tokenizer
from tests.runs import tiny_backbone
from tests.tiny_families import build


def measure(output: Path, model: str, *options: str, code: int = 0) -> dict[str, Any]:
    assert probe.main(["spectra", model, "--output", str(output), *options]) == code
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


def figures_alone(model: str, *options: str) -> dict[str, Any]:
    """Without the pages, which take seconds."""
    parser = probe.Parser()
    command.add_arguments(parser)
    figures: dict[str, Any] = finite(command.measure(parser.parse_args([model, *options]))["figures"])
    return figures


def tiny(folder: Path, model_type: str = "llama", **more: Any) -> str:
    build(model_type, head=False, vocab_size=len(WORDS) + 5, max_position_embeddings=400, **more).save_pretrained(
        folder
    )
    word_tokenizer().save_pretrained(folder)
    return str(folder)


def passages(file: Path, *lengths: int) -> str:
    words = np.random.default_rng(0).choice(
        [word for word in WORDS[3:] if word.isalpha()], (len(lengths), max(lengths))
    )
    paragraphs = [" ".join(some[:length]) for some, length in zip(words, lengths, strict=True)]
    file.write_text("\n\n".join(paragraphs) + "\n")
    return str(file)


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of it, of a Llama with random weights and a text of random words."""
    folder = tmp_path_factory.mktemp("random")
    texts = passages(folder / "texts.txt", 250, 230, 260, 240, 250, 250, 250, 40)
    measure(folder / "out", tiny(folder / "model"), "--texts", texts)
    return folder


def test_random_weights_have_nothing_beyond_their_nulls(random: Path) -> None:
    page = (random / "out" / "report.md").read_text()
    said = [line for line in page.splitlines() if line.startswith("- **")]
    (dimensions,) = [line for line in said if "FFT over dimensions" in line]
    assert dimensions.startswith(
        "- **FFT over dimensions**: nothing beyond its null (dimensions permuted): concentration"
    )
    assert json.loads((random / "out" / "report.json").read_text())["figures"]["dimensions/p"] > 0.05
    (lens,) = [line for line in said if "The lens, a prior of ours" in line]
    assert ": nothing beyond its null (our frequencies dealt to other tokens)" in lens
    (own,) = [line for line in said if "What of it is the text's" in line]
    assert ": nothing beyond its null (signs of 7 texts turned" in own


def test_the_report_names_its_texts_and_its_figures(random: Path) -> None:
    found = json.loads((random / "out" / "report.json").read_text())
    figures = found["figures"]
    assert found["texts"] == {
        "what": "the paragraphs of texts.txt",
        "tokens": [250, 230, 260, 240, 250, 250, 250],
        "notes": ["left out: 1 paragraph of fewer than 128 tokens"],
    }
    for place in ("embedded", "layer_00", "layer_01", "layer_02"):
        for variant in ("", "unit/"):
            for name in ("lag1", "slope", "centroid", "flatness", "slow_share"):
                for way in ("", "_rows_shuffled", "_input_shuffled", "_phase_randomised"):
                    assert figures[f"{place}/{variant}{name}{way}"] is not None
                assert found["nulls"][f"{place}/{variant}{name}"]["what"] == "rows shuffled"
                low, high = found["intervals"][f"{place}/{variant}{name}"]
                assert low <= high
    for band in ("low", "middle", "high"):
        for name in ("ppc", "ppc_input_shuffled", "ppc_surrogate", "z"):
            for place in ("", "layer_00/", "layer_02/"):
                assert figures[f"{place}heads/{band}/{name}"] is not None
    for name in ("dimensions/concentration", "dimensions/concentration_permuted", "dimensions/p", "lens/layer_01/p"):
        assert figures[name] is not None
    assert 0 < figures["source/layer_02/interference"] <= 1
    assert found["nulls"]["source/layer_00/concentration"]["n"] == 999
    assert not found["interrupted"]
    for name, value in figures.items():
        assert name in found["reasons"] or (name in found["populations"] and value is not None), name


def test_the_pages_show_every_chart(random: Path) -> None:
    page, html = ((random / "out" / name).read_text() for name in ("report.md", "report.html"))
    check_structure(html)
    for name in ("lag1", "spectra", "heads", "lens"):
        assert (random / "out" / "figures" / f"{name}.png").stat().st_size > 5_000
        assert f"(figures/{name}.png)" in page
        assert f'id="chart-{name}"' in html
    assert "## The lens, synthetic: a prior of ours, not the model's" in page


def test_the_same_again_but_for_what_depends_on_the_machine(random: Path) -> None:
    texts = str(random / "texts.txt")
    again = figures_alone(str(random / "model"), "--texts", texts, "--only", "tokens,dimensions")
    first = json.loads((random / "out" / "report.json").read_text())["figures"]
    assert again == {name: first[name] for name in again}
    assert "layer_02/lag1" in again
    assert not any("/heads/" in name or name.startswith("lens/") for name in again)


def test_layers_that_are_asked_for(random: Path) -> None:
    words = ["--texts", str(random / "texts.txt"), "--only", "lens,tokens", "--layers", "1"]
    figures = figures_alone(str(random / "model"), *words)
    places = {part for name in figures for part in name.split("/") if part.startswith(("layer_", "embedded"))}
    assert places == {"embedded", "layer_01"}


@pytest.mark.parametrize(("call", "done"), [(4, "1 text"), (6, "2 texts")])
def test_interrupted_after_some_texts(
    call: int, done: str, random: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts that are done are measured and written; the exit code is that of Ctrl-C."""
    calls, real = [], reading.read

    def read(*args: Any) -> None:
        calls.append(args)
        if len(calls) == call:  # each text is read twice
            raise KeyboardInterrupt
        real(*args)

    monkeypatch.setattr(reading, "read", read)
    options = ["--texts", str(random / "texts.txt"), "--only", "tokens,heads"]
    found = measure(tmp_path, str(random / "model"), *options, code=130)
    assert found["interrupted"]
    assert found["populations"]["layer_01/lag1"] == done
    assert found["populations"]["layer_01/heads/high/ppc"] == done
    assert "Interrupted" in (tmp_path / "report.md").read_text()


def test_a_run_is_measured_before_and_after(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "t5")
    modulator = LerpModulator(stream_of(load_config(backbone)), n_geometric_dims=8, initial_alpha=0.6)
    torch.nn.init.normal_(modulator.proj.weight, std=3.0)
    save_modulator(modulator, tmp_path / "run" / "modulator", backbone, [1], {})
    options = ["--texts", passages(tmp_path / "texts.txt", 140, 140), "--seed", "1"]
    found = measure(tmp_path / "out", str(tmp_path / "run"), *options)
    figures = found["figures"]
    plain = figures_alone(backbone, *options)
    assert {name: figures[f"original/{name}"] for name in plain} == plain
    assert figures["modulated/layer_00/lag1"] == figures["original/layer_00/lag1"]
    assert figures["modulated/layer_01/lag1"] != figures["original/layer_01/lag1"]
    assert len(figures) == 2 * len(plain)
    # The decoder reads what the encoder makes, and its own tokens as they are.
    for place, same in (("embedded", True), ("layer_00", False)):
        assert (figures[f"modulated/decoder/{place}/lag1"] == figures[f"original/decoder/{place}/lag1"]) == same
    assert plain["decoder/embedded/lag1"] == pytest.approx(plain["embedded/lag1"], abs=1e-6)
    for name in ("decoder/heads/high/ppc", "decoder/dimensions/p", "decoder/lens/layer_00/p"):
        assert plain[name] is not None
    assert 0 < plain["source/decoder/layer_00/interference"] <= 1
    for name in ("lag1", "spectra", "heads", "lens"):
        assert (tmp_path / "out" / "figures" / f"modulated_decoder_{name}.png").stat().st_size > 5_000
    page = (tmp_path / "out" / "report.md").read_text()
    assert "**FFT over dimensions, modulated**" in page
    assert "**Order of tokens, modulated, decoder**" in page
    assert "## FFT over dimensions, original, decoder" in page
    assert "(figures/original_lag1.png)" in page
    assert "`original/heads/low` was not measured: fewer than 160 tokens" in page


def test_no_text_is_long_enough(random: Path, tmp_path: Path) -> None:
    options = ["--texts", passages(tmp_path / "texts.txt", 100, 127)]
    found = measure(tmp_path / "out", str(random / "model"), *options)
    assert found["figures"]["tokens/lag1"] is None
    assert found["figures"]["dimensions/p"] is None
    assert found["reasons"]["heads"] == "no passage of at least 128 tokens"
    assert found["figures"]["lens/layer_00/p"] is not None
    assert "FFT over dimensions**" not in (tmp_path / "out" / "report.md").read_text()


def test_a_single_head_has_no_pairs(tmp_path: Path) -> None:
    model = tiny(tmp_path / "model", "bert", num_attention_heads=1)
    texts = passages(tmp_path / "texts.txt", 200)
    figures = figures_alone(model, "--texts", texts, "--only", "heads,dimensions")
    assert figures["heads/high/ppc"] is None
    assert figures["layer_00/heads/cosine"] is None
    assert figures["source/layer_00/interference"] == pytest.approx(1)


def test_states_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    model = build("bert", head=False, vocab_size=len(WORDS) + 5, max_position_embeddings=400)
    with torch.no_grad():
        model.encoder.layer[1].output.dense.bias[0] = torch.nan
    model.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    texts = passages(tmp_path / "texts.txt", 200, 200)
    found = measure(tmp_path / "out", str(tmp_path / "model"), "--texts", texts)
    assert found["reasons"]["lens/layer_02"] == "attention is not finite"
    assert found["figures"]["lens/layer_00/p"] is not None
    assert found["figures"]["layer_00/lag1"] is not None
    assert found["figures"]["layer_01/lag1"] is None
    assert found["reasons"]["layer_02"] == "the states are not finite"
    assert found["figures"]["dimensions/p"] is not None
    assert found["reasons"]["layer_02/heads"] == "their outputs are not finite"
    assert found["populations"]["heads/high/ppc"] == "2 texts, mean over 2 layers"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere/at/all"], "cannot be loaded"),
        (["mini", "--only", "fft"], "'fft' must be one of lens, dimensions, tokens, heads"),
        (["mini", "--layers", "9"], "layer 9 does not exist"),
        (["mini", "--device", "abacus"], "--device: 'abacus' is not there"),
        (["mini", "--texts", "nowhere.txt"], "--texts: nowhere.txt cannot be read (No such file"),
        (["mini", "--texts", "{empty}"], "holds no text; write one passage a paragraph"),
        (["mini", "--texts", "{binary}"], "cannot be read (it is not UTF-8)"),
    ],
)
def test_an_error_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    files = {"{empty}": tmp_path / "empty.txt", "{binary}": tmp_path / "binary.txt"}
    files["{empty}"].write_text("\n \n\n")
    files["{binary}"].write_bytes(b"\xff\xfe\x00")
    words = [str(files.get(word, word)) for word in words]
    assert probe.main(["spectra", *words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_images_have_no_tokens_in_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("vit", head=False).save_pretrained(tmp_path / "model")
    capsys.readouterr()  # its bar
    assert probe.main(["spectra", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 2
    assert "its patches lie in two directions" in capsys.readouterr().err


def test_another_report_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"run": {}}')
    assert probe.main(["spectra", "mini", "--output", str(tmp_path)]) == 2
    assert "is no output of this command" in capsys.readouterr().err
