"""probe.py topology: known figures of `mini`, random weights, shards, what is damaged or missing, and resuming."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import probe
from modulant.assets import MINI
from modulant.backbones.opening import open_model
from modulant.reports.run.folder import finite
from probes.topology import command, page, stream
from tests.pages import check_structure
from tests.tiny_families import build

VARYING = ("seconds", "peak_anonymous_bytes", "resumed_units", "model", "backbone", "rows")


def measure(model: str | Path, output: Path, *options: str, code: int = 0) -> dict[str, Any]:
    """The whole command, which draws its charts: seconds."""
    assert probe.main(["topology", str(model), "--output", str(output), *options]) == code
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


def figures_alone(model: str | Path, output: Path, *options: str) -> dict[str, Any]:
    """What report.json holds, without its pages."""
    parser = probe.Parser()
    command.add_arguments(parser)
    found, rows = command.measure(parser.parse_args([str(model), *options]), output)
    return json.loads(json.dumps(finite(found))) | {"verdicts": page._verdicts(found), "rows": rows}


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in VARYING}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    build("t5").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def t5_found(t5: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return figures_alone(t5, tmp_path_factory.mktemp("found"))


def test_figures_of_mini(tmp_path: Path) -> None:
    """Once computed by other code, in NumPy, from the same file."""
    found = figures_alone("mini", tmp_path)
    figures = found["figures"]
    wanted = {
        "self_q/encoder/stable_rank": (14.50, 0.005),
        "self_q/encoder/stable_rank_null": (32, 1e-9),
        "self_q/encoder/participation_ratio": (0.337 * 128, 0.07),
        "source/self_q/encoder/participation_ratio": (0.660 * 128, 0.07),
        "source/self_q/encoder/rank90": (85, 0.5),
        "self_q/encoder/rank90": (61, 0.5),
        "self_q/encoder/rms": (0.0183, 5e-5),
        "self_q/encoder/below_0.1": (1.0, 1e-9),
        "self_q/encoder/below_0.01": (0.4189, 5e-5),
        "self_k/encoder/stable_rank": (13.42, 0.005),
        "self_k/encoder/rms": (0.1057, 5e-5),
        "self_k/encoder/below_0.1": (0.6576, 5e-5),
        "self_qk/encoder/stable_rank": (2.863, 5e-4),
        "self_qk/decoder/stable_rank": (4.616, 5e-4),
        "self_qk/encoder/signed_mass": (-0.068, 5e-4),
        "self_qk/encoder/symmetry": (0.058, 5e-4),
        "neurons/encoder/weak": (0, 0),
    }
    for name, (value, tolerance) in wanted.items():
        assert figures[name] == pytest.approx(value, abs=tolerance), name
    assert all(0.0785 < figures[name] < 0.0825 for name in figures if name.endswith("coder/below_0.1_rms"))
    stored = load_file(MINI / "model.safetensors").values()
    assert sum(kind["numbers"] for kind in found["tensors"].values()) == sum(tensor.numel() for tensor in stored)
    for head in found["rows"]["heads"]:  # Sylvester's law
        signs = [head.get(f"source/{sign}") for sign in ("positive", "negative")]
        assert signs == ([None, None] if head["kind"].startswith("cross") else [32, 32]), head
    assert found["population"]["matrices"] == 57
    assert found["verdicts"][0].startswith("**Heads**: beyond its null (heads whose two sides are of adjacent layers)")


def test_biases_by_position_of_mini(tmp_path: Path) -> None:
    """Its curves are those that its own attention adds, and the source's kinds are about numbers of buckets."""
    found = figures_alone("mini", tmp_path, "--only", "positions")
    figures, rows = found["figures"], found["rows"]["positions"]
    kinds = {side: [figures[f"source/positions/{side}/{kind}"] for kind in ("local", "global", "mixed")]
             for side in ("encoder", "decoder")}  # fmt: skip
    assert kinds == {"encoder": [0, 0, 4], "decoder": [4, 0, 0]}
    assert [row["argmax"] for row in rows if row["location"] == "encoder" and row["head"] is not None] == [1, 2, 1, -16]
    assert {row["argmax"] for row in rows if row["location"] == "decoder" and row["head"] is not None} == {0, -1}
    unused = {row["location"]: row["unused_buckets"] for row in rows if row["head"] is None}
    assert unused == {"encoder": [16], "decoder": []}
    model = open_model("mini", head="seq2seq").model
    for side, stack in (("encoder", model.encoder), ("decoder", model.decoder)):
        bias = stack.block[0].layer[0].SelfAttention.compute_bias(150, 150)[0]  # (heads, query, key)
        for row in (one for one in rows if one["location"] == side and one["head"] is not None):
            for nearest, count, value in row["curve"]:
                for distance in {nearest, nearest + (count - 1) * (-1 if nearest < 0 else 1)}:
                    query = 140 if distance < 0 else 5
                    assert float(bias[row["head"], query, query + distance]) == pytest.approx(value), distance
    assert figures["positions/encoder/spearman_right_p"] < 1e-3
    assert figures["positions/decoder/spearman_right"] is None
    assert "Biases by position" in found["verdicts"][0]


def test_figures_of_minilm(tmp_path: Path) -> None:
    """Once computed by other code, in NumPy, from the same file: a BERT, whose norms come after its blocks."""
    figures = figures_alone("all-MiniLM-L6-v2", tmp_path)["figures"]
    wanted = {
        "self_q/encoder/stable_rank": (37.39, 0.005),
        "self_q/encoder/participation_ratio": (0.302 * 384, 0.2),
        "self_q/encoder/rank90": (152, 0.5),
        "source/self_q/encoder/rank90": (228, 0.5),
        "mlp_up/encoder/stable_rank": (26.37, 0.005),
        "mlp_up/encoder/participation_ratio": (0.416 * 384, 0.2),
        "self_qk/encoder/stable_rank": (11.874, 5e-4),
        "self_qk/encoder/signed_mass": (0.063, 5e-4),
        "self_qk/encoder/symmetry": (0.171, 5e-4),
        "source/self_qk/encoder/positive_share": (0.5, 1e-9),
        "between/self_q/encoder": (0.43, 0.006),
        "between/self_k/encoder": (0.55, 0.005),
        "between/self_v/encoder": (0.27, 0.005),
        "between/mlp_up/encoder": (0.48, 0.005),
    }
    for name, (value, tolerance) in wanted.items():
        assert figures[name] == pytest.approx(value, abs=tolerance), name
    assert all(abs(figures[name]) < 0.003 for name in figures if name.startswith("between/") and name.endswith("_null"))


@pytest.mark.parametrize("model_type", ["t5", "bert", "llama", "gpt2", "modernbert", "dinov2"])
def test_random_weights_are_nothing_beyond_their_null(model_type: str, tmp_path: Path) -> None:
    more = {"t5": {"num_layers": 6}, "gpt2": {"n_layer": 6}}.get(model_type, {"num_hidden_layers": 6})
    build(model_type, **more).save_pretrained(tmp_path / "model")
    found = figures_alone(tmp_path / "model", tmp_path / "out")
    parts = ["Heads", "Adjacent layers", *(["Biases by position"] if model_type == "t5" else [])]
    wanted = [f"**{part}**: nothing beyond its null" for part in parts]
    assert [line.partition(" (")[0] for line in found["verdicts"]] == wanted
    initial = [v for n, v in found["figures"].items() if n.endswith("/rms_over_init") and n.count("/") == 2]
    assert len(initial) >= 6
    assert initial == pytest.approx([1] * len(initial), abs=0.06)
    location = "decoder" if model_type in ("llama", "gpt2") else "encoder"
    for kind in ("self_q", "self_v", "mlp_down"):
        place = f"{kind}/{location}"
        assert found["figures"][f"{place}/participation_ratio"] == pytest.approx(
            found["figures"][f"{place}/participation_ratio_null"], rel=0.06
        )


def test_shards_pickles_and_duplicates_give_the_same(t5: Path, t5_found: dict[str, Any], tmp_path: Path) -> None:
    model = build("t5")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    tensors = load_file(t5 / "model.safetensors")
    (tmp_path / "pickle").mkdir()
    shutil.copy(t5 / "config.json", tmp_path / "pickle")
    tied = {name: tensors["shared.weight"].clone() for name in ("encoder.embed_tokens.weight", "lm_head.weight")}
    torch.save(tensors | tied, tmp_path / "pickle" / "pytorch_model.bin")
    wanted = without_times(t5_found)
    assert without_times(figures_alone(tmp_path / "shards", tmp_path / "a")) == wanted
    pickled = figures_alone(tmp_path / "pickle", tmp_path / "b")
    assert pickled["figures"] == wanted["figures"]
    assert pickled["duplicates"] == ["shared.weight", "lm_head.weight"]  # of encoder.embed_tokens.weight


def test_pages_and_a_missing_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is missing is named, everything else is measured and shown."""
    build("t5").save_pretrained(tmp_path / "m", max_shard_size="20KB")
    lost = sorted((tmp_path / "m").glob("*.safetensors"))[2]
    lost.unlink()
    out = tmp_path / "out"
    found = measure(tmp_path / "m", out, code=1)
    assert found["missing_shards"] == [lost.name]
    assert found["weights_sha256"] is None
    assert 0 < found["population"]["matrices"] < 49
    printed = capsys.readouterr()
    assert f"error: {lost.name} missing" in printed.err
    text = (out / "report.md").read_text()
    assert text in printed.out
    assert lost.name in text
    assert len((out / "matrices.jsonl").read_text().splitlines()) == found["population"]["matrices"]
    assert len((out / "heads.jsonl").read_text().splitlines()) == found["population"]["heads"]
    n_charts = 16  # four of them of biases by position
    shown = [line.split("](")[1].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert len(shown) == n_charts
    assert all((out / name).stat().st_size > 5_000 for name in shown)
    assert len(check_structure((out / "report.html").read_text()).figures) == n_charts
    assert not (out / "progress.jsonl").exists()


def test_a_damaged_matrix_is_named_and_left_out(t5: Path, t5_found: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(t5, tmp_path / "m")
    tensors = load_file(t5 / "model.safetensors")
    name = "encoder.block.1.layer.0.SelfAttention.k.weight"
    tensors[name][0, :2] = torch.tensor([torch.nan, torch.inf])
    save_file(tensors, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    found = figures_alone(tmp_path / "m", tmp_path / "out")
    assert found["damaged"] == {name: 2}
    assert f"`{name}` (2)" in page.markdown(found, found["rows"], [])
    assert page.charts(found, found["rows"])
    assert found["population"]["heads"] == t5_found["population"]["heads"] - 4  # queries and keys of one layer
    assert found["figures"]["self_q/encoder/stable_rank"] == t5_found["figures"]["self_q/encoder/stable_rank"]
    assert found["figures"]["self_k/encoder/stable_rank"] != t5_found["figures"]["self_k/encoder/stable_rank"]


def test_an_interrupted_measurement_is_resumed(
    t5: Path, t5_found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = stream.measure_block, []

    def interrupted(*args: Any) -> Any:
        calls.append(args[0].layer)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(stream, "measure_block", interrupted)
    words = ["topology", str(t5), "--output", str(tmp_path)]
    assert probe.main(words) == probe.INTERRUPTED
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"unit": "encoder/2", "ro')  # as a killed process leaves it
    assert probe.main([*words, "--resume", "--seed", "3"]) == 2
    resumed = figures_alone(t5, tmp_path, "--resume")
    assert resumed["resumed_units"] == 2
    assert calls == [0, 1, 2, 2, 0, 1, 2]
    assert without_times(resumed) == without_times(t5_found)


def test_parts_layers_and_the_exact_way(t5: Path, t5_found: dict[str, Any], tmp_path: Path) -> None:
    found = figures_alone(t5, tmp_path, "--only", "matrices", "--layers", "1,2", "--exact")
    assert found["population"] == {"matrices": 33, "heads": 0, "between": 0, "neurons": 0, "norms": 0, "positions": 0}
    assert found["way"].startswith("singular")
    exact = figures_alone(t5, tmp_path, "--exact")["figures"]
    assert exact.keys() == t5_found["figures"].keys()
    for name, value in t5_found["figures"].items():
        assert exact[name] == (None if value is None else pytest.approx(value, rel=1e-6, abs=1e-9)), name


def test_the_fast_way_has_two_ranks(t5: Path, t5_found: dict[str, Any], tmp_path: Path) -> None:
    found = figures_alone(t5, tmp_path, "--fast")
    for name, value in t5_found["figures"].items():
        if any(word in name for word in ("entropy_rank", "rank90", "active", "condition")) or (
            name.startswith("source/") and name.endswith(("participation_ratio", "participation_ratio_null"))
        ):
            assert found["figures"].get(name) is None, name
        else:
            assert found["figures"][name] == (None if value is None else pytest.approx(value, rel=1e-5)), name
    assert "Without spectra (`--fast`)" in page.markdown(found, found["rows"], [])
    assert list(page.charts(found, found["rows"])[0].views) == ["stable rank", "participation ratio"]


def test_half_precision(t5: Path, t5_found: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(t5, tmp_path / "m")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(t5 / "model.safetensors").items()}
    save_file(tensors, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    found = figures_alone(tmp_path / "m", tmp_path / "out")
    assert found["figures"]["self_q/encoder/stable_rank"] == pytest.approx(
        t5_found["figures"]["self_q/encoder/stable_rank"], rel=1e-2
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere/at/all"], "cannot be loaded"),
        (["mini", "--layers", "0,9"], "layer 9 does not exist"),
        (["mini", "--only", "matrices,head"], "'head' must be one of matrices, heads"),
        (["mini", "--device", "cuda:7"], "--device: 'cuda:7' is not there"),
        (["mini", "--layers", "first"], "must be layers such as"),
    ],
)
def test_errors_are_one_line(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["topology", *words, "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_weights_that_are_not_what_the_configuration_describes(t5: Path, tmp_path: Path) -> None:
    shutil.copytree(t5, tmp_path / "m")
    tensors = load_file(t5 / "model.safetensors")
    tensors.pop("encoder.block.1.layer.0.SelfAttention.k.weight")
    save_file(tensors, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    assert probe.main(["topology", str(tmp_path / "m"), "--output", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_heads_are_left_out_where_a_shard_with_their_gain_is_missing(tmp_path: Path) -> None:
    model = build("llama")
    model.save_pretrained(tmp_path / "m", max_shard_size="20KB")
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())["weight_map"]
    lost = index["model.layers.1.input_layernorm.weight"]
    (tmp_path / "m" / lost).unlink()
    rows = figures_alone(tmp_path / "m", tmp_path / "out")["rows"]
    assert {row["layer"] for row in rows["heads"]} <= {0, 2}
    assert any(row["layer"] == 2 for row in rows["heads"])
