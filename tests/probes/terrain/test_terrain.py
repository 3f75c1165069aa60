"""probe.py terrain: mini's known figures, tiny models of several families, a run, and what cannot be measured."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

import probe
from modulant.backbones.families import parts_of, stream_of
from modulant.backbones.opening import open_model
from modulant.backbones.t5 import load_config
from modulators import LerpModulator, save_modulator
from probes.findings import Findings
from probes.terrain.decoder import Decoder, measure_decoder
from probes.terrain.layers import EMBEDDED, Inputs, inputs_of, states_of
from tests.pages import check_structure
from tests.probes.terrain.tokenizers import WORDS, word_tokenizer
from tests.runs import tiny_backbone
from tests.tiny_families import build


def measure(output: Path, model: str, *options: str) -> dict[str, Any]:
    assert probe.main(["terrain", model, "--output", str(output), *options]) == 0
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


def tiny(folder: Path, model_type: str) -> str:
    build(model_type, head=False, **({} if model_type in IMAGES else {"vocab_size": len(WORDS) + 5})).save_pretrained(
        folder
    )
    if model_type not in IMAGES:
        word_tokenizer().save_pretrained(folder)
    return str(folder)


IMAGES = ("vit", "clip_vision_model")
TEXT = ("t5", "bert", "modernbert", "gpt2", "llama", "gemma", "clip_text_model")


@pytest.mark.slow
def test_minis_figures_are_those_of_another_implementation(tmp_path: Path) -> None:
    found = measure(tmp_path, "mini", "--rows", "all", "--only", "vocabulary,pentachora,words,constants")
    figures = found["figures"]
    exact = {
        "norm/mean": 19.729, "norm/sd": 4.321, "cosine/mean": 0.24625, "cosine/sd": 0.19873,
        "cosine_centred/sd": 0.15843, "squared_distance/mean": 598.51, "squared_distance/cv": 0.4276,
        "spectrum/participation_ratio": 25.605, "spectrum/participation_ratio_uncentred": 6.438,
        "spectrum/top_share": 0.1705, "spectrum/entropy_rank": 70.82, "spectrum/dims_80": 74, "spectrum/dims_90": 99,
        "spectrum/dims_95": 113, "spectrum/dims_99": 125, "digits/r": -0.186, "number_words/r": -0.493,
        "categories/gap": 0.2217,
    }  # fmt: skip
    for name, value in exact.items():
        assert figures[name] == pytest.approx(value, rel=3e-3, abs=5e-5), name
    sampled = {
        "pentachoron/cv": 0.295, "pentachoron/cv_unit": 0.304, "pentachoron/cv_null_diagonal": 0.131,
        "pentachoron/cv_null_covariance": 0.220, "pentachoron/ratio_isotropic": 0.487,
        "pentachoron/ratio_diagonal": 0.897, "pentachoron/ratio_covariance": 0.983, "digits/p": 0.27,
        "digits/adjacent_gap": 0.022,
        "constant/0.29154": 1.005, "constant/0.29514": 1.003,
    }  # fmt: skip
    for name, value in sampled.items():
        assert figures[name] == pytest.approx(value, abs=0.015), name
    assert figures["categories/z"] == pytest.approx(30, abs=2)
    assert figures["letters/r"] is None
    assert "letters" in found["reasons"]
    assert found["rows"] == {
        "matrix": 16_000, "damaged": 0, "padding": 0, "special": 0, "zero": 0, "measured": 16_000,
    }  # fmt: skip


@pytest.mark.parametrize("model_type", ["t5", "bert", "llama"])
def test_families(model_type: str, tmp_path: Path) -> None:
    name = tiny(tmp_path / "model", model_type)
    found = measure(tmp_path / "out", name, "--only", "vocabulary,words,layers", "--no-random")
    figures = found["figures"]
    matrix = AutoModel.from_pretrained(name).get_input_embeddings().weight.detach()
    kept = matrix[3 : len(WORDS)].double()  # three special tokens before, five rows of padding after
    assert found["rows"] | {"zero": 0} == {
        "matrix": len(matrix), "damaged": 0, "padding": 5, "special": 3, "zero": 0, "measured": len(kept),
    }  # fmt: skip
    assert figures["norm/mean"] == pytest.approx(kept.norm(dim=1).mean().item(), rel=1e-5)
    assert figures["digits/p"] > 0.001
    layers = {f"layer_{i:02d}" for i in range(3)}
    both = {"decoder", "encoder_decoder"} if model_type == "t5" else set()
    assert {name.partition("/")[0] for name in figures if "layer_" in name} == layers | both


@pytest.mark.parametrize("model_type", [*TEXT, *IMAGES])
def test_states_are_the_stream_before_the_final_norm(model_type: str, tmp_path: Path) -> None:
    backbone = open_model(tiny(tmp_path, model_type))
    inputs = inputs_of(backbone, backbone.tokenizer, 1)
    states = states_of(backbone, inputs, [0, 1, 2])
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in backbone.blocks)
    given, mask = inputs.batches[0]
    more = {} if mask is None else {"attention_mask": mask}
    with torch.inference_mode():
        hidden = backbone.parts.stack(**{backbone.family.reads: given}, **more, output_hidden_states=True).hidden_states
    real = torch.ones(hidden[0].shape[:2], dtype=torch.bool) if mask is None else mask.bool()
    n = int(real.sum())
    assert int(states.first[:n].sum()) == len(given)
    for layer, place in ((EMBEDDED, 0), (0, 1), (1, 2)):  # the last of them may be after the norm
        torch.testing.assert_close(states.layers[layer][:n], hidden[place][real])


def test_a_model_that_reads_images_has_layers_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = tiny(tmp_path / "model", "vit")
    found = measure(tmp_path / "out", name)
    assert "random/layer_02/norm" in found["figures"]
    assert not any(name.startswith("norm/") for name in found["figures"])
    assert "it reads images" in (tmp_path / "out" / "report.md").read_text()
    assert probe.main(["terrain", name, "--only", "vocabulary", "--output", str(tmp_path / "none")]) == 2
    assert "it reads images, and has no vocabulary" in capsys.readouterr().err


@pytest.fixture(scope="module")
def random(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of it, of a BERT with random weights."""
    folder = tmp_path_factory.mktemp("random")
    measure(folder / "out", tiny(folder / "model", "bert"), "--layers", "0,2")
    return folder


def test_random_embeddings_have_nothing_beyond_their_nulls(random: Path) -> None:
    page = (random / "out" / "report.md").read_text()
    assert "is not told apart from that of Gaussian rows" in page
    assert "not told apart from those of permuted lists" in page
    assert "`months` was not measured: not a single token each" in page
    found = json.loads((random / "out" / "report.json").read_text())
    assert found["figures"]["digits/p"] > 0.05


def test_the_pages_show_every_chart(random: Path) -> None:
    page, html = ((random / "out" / name).read_text() for name in ("report.md", "report.html"))
    check_structure(html)
    for name in ("spectrum", "cosines", "pentachora", "order", "layers_norm", "layers_cosine", "layers_rank"):
        assert (random / "out" / "figures" / f"{name}.png").stat().st_size > 5_000
        assert f"(figures/{name}.png)" in page
        assert f'id="chart-{name}"' in html


def test_every_figure_has_a_unit_and_a_population_or_a_reason(random: Path) -> None:
    found = json.loads((random / "out" / "report.json").read_text())
    for name, value in found["figures"].items():
        reason = name in found["reasons"] or name.partition("/")[0] in found["reasons"]
        assert reason or (name in found["units"] and name in found["populations"] and value is not None), name
    layers = {name.rsplit("/", 1)[0] for name in found["figures"] if "layer_" in name}
    assert layers == {f"{cloud}layer_{layer}" for cloud in ("", "random/") for layer in ("00", "02")}


def test_the_same_again_but_for_what_depends_on_the_machine(random: Path, tmp_path: Path) -> None:
    options = ("--only", "words,layers", "--layers", "0,2")
    again = measure(tmp_path, str(random / "model"), *options)["figures"]
    first = json.loads((random / "out" / "report.json").read_text())["figures"]
    assert again == {name: first[name] for name in again}
    assert "digits/r" in again


def test_a_run_is_measured_before_and_after(tmp_path: Path) -> None:
    backbone = tiny_backbone(tmp_path / "t5")
    modulator = LerpModulator(stream_of(load_config(backbone)), n_geometric_dims=8, initial_alpha=0.6)
    torch.nn.init.normal_(modulator.proj.weight, std=3.0)
    save_modulator(modulator, tmp_path / "run" / "modulator", backbone, [1], {})
    figures = measure(tmp_path / "out", str(tmp_path / "run"), "--only", "layers", "--no-random")["figures"]
    plain = measure(tmp_path / "plain", backbone, "--only", "layers", "--no-random")["figures"]
    assert {name: figures[f"original/{name}"] for name in plain} == plain
    assert figures["modulated/layer_00/norm"] == figures["original/layer_00/norm"]
    assert figures["modulated/layer_01/norm"] != figures["original/layer_01/norm"]
    assert len(figures) == 2 * len(plain)


def test_rows_that_are_no_tokens_are_counted_and_left_out(tmp_path: Path) -> None:
    name = tiny(tmp_path / "model", "gpt2")
    model = AutoModel.from_pretrained(name)
    with torch.no_grad():
        model.get_input_embeddings().weight[10] = 0
        model.get_input_embeddings().weight[11, 3] = torch.nan
    model.save_pretrained(name)
    counts = measure(tmp_path / "out", name, "--only", "vocabulary")["rows"]
    assert counts == {
        "matrix": len(WORDS) + 5, "damaged": 1, "padding": 5, "special": 3, "zero": 1, "measured": len(WORDS) - 5,
    }  # fmt: skip
    everything = measure(tmp_path / "all", name, "--only", "vocabulary", "--rows", "all")["rows"]
    assert everything["measured"] == len(WORDS) + 4


def test_states_that_are_not_finite_are_not_measured(tmp_path: Path) -> None:
    name = tiny(tmp_path / "model", "gpt2")
    model = AutoModel.from_pretrained(name)
    with torch.no_grad():
        model.h[1].mlp.c_proj.bias[0] = torch.nan
    model.save_pretrained(name)
    found = measure(tmp_path / "out", name, "--only", "layers", "--no-random")
    assert found["figures"]["layer_00/norm"] > 0
    for layer in ("layer_01", "layer_02"):
        assert found["figures"][f"{layer}/norm"] is None
        assert found["reasons"][layer] == "the states are not finite"


def test_a_model_without_a_tokenizer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build("bert", head=False).save_pretrained(tmp_path / "model")
    capsys.readouterr()  # its bar
    assert probe.main(["terrain", str(tmp_path / "model"), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "--rows all measures the matrix without one" in error
    assert error.count("\n") == 1
    found = measure(tmp_path / "out", str(tmp_path / "model"), "--rows", "all")
    assert found["figures"]["digits/r"] is None
    assert "tokenizer" in found["reasons"]["digits"]
    assert not any("layer_" in name for name in found["figures"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere/at/all"], "cannot be loaded"),
        (["mini", "--only", "norms"], "'norms' must be one of vocabulary, pentachora"),
        (["mini", "--layers", "1,x"], "must be layers such as 0,3,5"),
        (["mini", "--layers", "9"], "layer 9 does not exist"),
        (["mini", "--device", "abacus"], "--device: 'abacus' is not there"),
    ],
)
def test_an_error_is_one_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert probe.main(["terrain", *words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_another_report_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "report.json").write_text('{"run": {}}')
    assert probe.main(["terrain", "mini", "--output", str(tmp_path)]) == 2
    assert "is no output of this command" in capsys.readouterr().err


@pytest.mark.parametrize("model_type", ["t5", "gpt2", "gpt_neox"])
def test_a_head_of_its_own_is_compared_with_the_embedding(model_type: str, tmp_path: Path) -> None:
    """A head that holds the embedding in part: cosines by hand, over tokens that are measured."""
    folder = tmp_path / "model"
    model = build(model_type, vocab_size=len(WORDS) + 5, tie_word_embeddings=False)
    rows = model.get_input_embeddings().weight.detach()
    head = 2 * rows + 0.5 * rows.std() * torch.randn_like(rows)
    model.get_output_embeddings().weight = torch.nn.Parameter(head)  # of a T5, whose configuration ties it
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    found = measure(tmp_path / "out", str(folder), "--only", "vocabulary")
    figures, nulls = found["figures"], found["nulls"]
    kept = slice(3, len(WORDS))
    a, b = rows[kept].double(), head[kept].double()
    cosines = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
    n = len(a)
    assert figures["head/tied"] == 0
    assert figures["head/cosine"] == pytest.approx(cosines.diagonal().mean().item(), abs=1e-6)
    others = (cosines.sum() - cosines.trace()).item() / (n * (n - 1))
    assert nulls["head/cosine"]["mean"] == pytest.approx(others, abs=1e-6)
    assert figures["head/distance"] == pytest.approx(((a - b).norm() / a.norm()).item(), rel=1e-5)
    shuffled = [((a - b[torch.randperm(n)]).norm() / a.norm()).item() for _ in range(200)]
    assert nulls["head/distance"]["mean"] == pytest.approx(sum(shuffled) / len(shuffled), rel=0.01)
    assert "**Head**: a matrix of its own" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize("model_type", ["t5", "bert", "llama"])
def test_a_head_that_is_the_embedding_is_tied(model_type: str, tmp_path: Path) -> None:
    model = build(model_type, vocab_size=len(WORDS) + 5, tie_word_embeddings=True)
    model.save_pretrained(tmp_path / "model")
    word_tokenizer().save_pretrained(tmp_path / "model")
    found = measure(tmp_path / "out", str(tmp_path / "model"), "--only", "vocabulary")
    assert found["figures"]["head/tied"] == 1
    assert found["figures"]["head/cosine"] is None
    assert "it is the embedding" in found["reasons"]["head"]


def test_a_decoder_reads_the_same_texts_one_token_later(tmp_path: Path) -> None:
    backbone = open_model(tiny(tmp_path, "t5"))
    inputs = Inputs(inputs_of(backbone, backbone.tokenizer, 1).batches[:1], "")
    found = Findings()
    measure_decoder(backbone, inputs, [0, 2], found, "", 1)
    assert not any(block._forward_hooks for block in (*backbone.blocks, *backbone.model.decoder.block))
    ids, mask = inputs.batches[0]
    start = torch.full((len(ids), 1), backbone.model.config.decoder_start_token_id)
    given, seen = torch.cat([start, ids], 1), torch.cat([torch.ones_like(start), mask], 1)
    with torch.inference_mode():
        output = backbone.model(
            input_ids=ids, attention_mask=mask, decoder_input_ids=given, decoder_attention_mask=seen,
            output_hidden_states=True,
        )  # fmt: skip
    decoder = Decoder("", backbone.model, parts_of(backbone.model, "decoder"))
    states = states_of(decoder, Inputs([(given, seen)], ""), [0, 1])
    torch.testing.assert_close(states.layers[0], output.decoder_hidden_states[1][seen.bool()])
    figures = found.figures
    assert {name.split("/")[1] for name in figures if name.startswith("decoder/")} == {
        "embedded",
        "layer_00",
        "layer_02",
    }
    for key in ("cka", "cosine", "cosine_centred"):  # both begin with the same embeddings of the same tokens
        assert figures[f"encoder_decoder/embedded/{key}"] == pytest.approx(1, abs=1e-6)
        assert found.nulls[f"encoder_decoder/embedded/{key}"]["mean"] < 0.9
    assert figures["encoder_decoder/last/cka"] == pytest.approx(figures["encoder_decoder/layer_02/cka"])
    assert abs(found.nulls["encoder_decoder/last/cka"]["mean"]) < 0.1 < figures["encoder_decoder/last/cka"]
    real = mask.bool()
    a, b = output.encoder_hidden_states[1][real], output.decoder_hidden_states[1][:, 1:][real]
    whole = torch.nn.functional.cosine_similarity(a, b, dim=-1).mean().item()
    assert figures["encoder_decoder/layer_00/cosine"] == pytest.approx(whole, abs=1e-5)
