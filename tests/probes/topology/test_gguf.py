"""GGUF files, written by gguf's own writer: the same figures as the safetensors file of the same numbers."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import probe
from probes.topology import command, page
from probes.topology.reader import Weights
from tests.probes.topology.test_command import VARYING, figures_alone
from tests.tiny_families import build

gguf = pytest.importorskip("gguf")

ARCHITECTURES = {"gemma3_text": "gemma3", "mistral": "llama"}  # others have their own names
ABOUT_FILES = {*VARYING, "stored_as"}


def write(
    path: Path,
    config: Any,
    state: dict[str, Tensor],
    kind: str = "F32",
    architecture: str | None = None,
    parts: int = 0,
) -> dict[str, Tensor]:
    """As llama.cpp writes a model; returns what the numbers in it are, dequantised by gguf."""
    architecture = architecture or ARCHITECTURES.get(config.model_type, config.model_type)
    number = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    table = gguf.get_tensor_name_map(number, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, architecture, split_max_tensors=math.ceil(len(state) / parts) if parts else 0)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_width := getattr(config, "head_dim", None) or config.hidden_size // 4)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([f"token {i}" for i in range(97)])  # which are passed over
    writer.add_token_scores([0.5] * 97)
    quantised, stored = getattr(gguf.GGMLQuantizationType, kind), {}
    for name, tensor in state.items():
        numbers = tensor.float().numpy()
        own = gguf.GGMLQuantizationType.F32
        if numbers.ndim == 2:
            own, numbers = quantised, gguf.quantize(numbers, quantised)
        read = torch.from_numpy(gguf.dequantize(numbers, own).copy())
        stored[name] = read.half() if own.name == "F16" else read
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = len(numbers) // head_width
            rows = numbers.reshape(heads, 2, head_width // 2, *numbers.shape[1:])  # pairs for rotation, side by side
            numbers = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(numbers.shape)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            numbers = numbers + 1
        shown = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert shown is not None, name
        writer.add_tensor(shown, numbers, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


@pytest.fixture(scope="module")
def llama() -> Any:
    return build("llama", hidden_size=64, intermediate_size=96)  # whole blocks of 32


def without_scales(found: Any) -> Any:
    """Without what a configuration says and a GGUF file does not: at which scale weights began."""
    if isinstance(found, dict):
        return {
            key: without_scales(value)
            for key, value in found.items()
            if key not in ABOUT_FILES and not key.endswith("rms_over_init")
        }
    return found


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_1"])
def test_figures_are_those_of_the_same_numbers(kind: str, llama: Any, tmp_path: Path) -> None:
    folder, packed = tmp_path / "folder", tmp_path / "packed"
    packed.mkdir()
    stored = write(packed / "model.gguf", llama.config, llama.state_dict(), kind)
    llama.config.save_pretrained(folder)
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    wanted, found = (figures_alone(one, tmp_path / f"{one.name}_") for one in (folder, packed))
    assert without_scales(found) == without_scales(wanted)  # their digests too
    for part, rows in wanted["rows"].items():
        assert list(map(without_scales, found["rows"][part])) == list(map(without_scales, rows)), part
    wanted_types = {"F32": 30} if kind == "F32" else {kind: 23, "F32": 7}
    assert {name: about["tensors"] for name, about in found["stored_as"].items()} == wanted_types
    assert sum(about["numbers"] for about in found["stored_as"].values()) == sum(map(Tensor.numel, stored.values()))
    assert f"{kind} ({wanted_types[kind]} tensors)" in next(line for line in page._notes(found) if "**GGUF**" in line)
    if kind == "Q8_0":
        again = figures_alone(packed / "model.gguf", tmp_path / "packed_", "--resume")
        assert again["resumed_units"] == 5  # blocks, and two tables
        assert without_scales(again) == without_scales(found)
        write(packed / "model.gguf", llama.config, llama.state_dict(), "Q4_1")
        with pytest.raises(ValueError, match="--resume"):
            figures_alone(packed, tmp_path / "packed_", "--resume")


@pytest.mark.parametrize("model_type", ["mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3"])
def test_every_matrix_of_a_family_has_its_place(model_type: str, tmp_path: Path) -> None:
    model = build(model_type)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    stored = write(tmp_path / "model.gguf", model.config, state)
    weights = Weights(str(tmp_path))
    assert set(weights.names) == set(stored)
    for name, tensor in stored.items():
        torch.testing.assert_close(weights.read(name), tensor, rtol=0, atol=1e-6 if "gemma" in model_type else 0)
    config = command._config(str(tmp_path))
    assert config.model_type == ARCHITECTURES.get(model_type, model_type).replace("gemma3", "gemma3_text")
    layout = command._layout(str(tmp_path), config, weights)
    assert [block.layer for block in layout.blocks] == [0, 1, 2]
    assert all(stored.name is not None for block in layout.blocks for stored in block.tensors)
    assert all(block.has_gains for block in layout.blocks)
    assert {"other"} & set(layout.kinds.values()) == set()
    assert layout.blocks[0].shape.head_width == getattr(model.config, "head_dim", None) or 8


def test_another_architecture_is_read_by_names(llama: Any, tmp_path: Path) -> None:
    write(tmp_path / "model.gguf", llama.config, llama.state_dict(), architecture="orion")
    found = figures_alone(tmp_path, tmp_path / "out")
    assert found["architecture"] == "orion (GGUF)"
    assert found["by_name"]
    assert found["population"]["matrices"] == 23
    assert found["population"]["heads"] == 0
    assert found["tensors"]["self_q"]["tensors"] == found["tensors"]["mlp_down"]["tensors"] == 3
    assert "on which no figure depends" in " ".join(page._notes(found))


def test_parts_of_a_file(llama: Any, tmp_path: Path) -> None:
    for name, parts in (("whole", 0), ("parts", 3)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "m.gguf", llama.config, llama.state_dict(), parts=parts)
    files = sorted((tmp_path / "parts").iterdir())
    assert [file.name for file in files] == [f"m-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
    whole = figures_alone(tmp_path / "whole", tmp_path / "a")
    assert without_scales(figures_alone(files[1], tmp_path / "b")) == without_scales(whole)
    files[2].unlink()
    found = figures_alone(tmp_path / "parts", tmp_path / "c")
    assert found["missing_shards"] == [files[2].name]
    assert 0 < found["population"]["matrices"] < whole["population"]["matrices"]


def test_what_cannot_be_read(
    llama: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(model: Path) -> str:
        assert probe.main(["topology", str(model), "--output", str(tmp_path / "out")]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    file = tmp_path / "model.gguf"
    write(file, llama.config, llama.state_dict())
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    assert "model.gguf ends within" in said(file)
    file.write_bytes(content[:300])
    assert "no whole GGUF file" in said(file)
    file.write_bytes(b"GGUX" + content[4:])
    assert "no GGUF file" in said(file)
    file.write_bytes(b"")
    assert "no GGUF file" in said(tmp_path)
    (tmp_path / "other.gguf").write_bytes(content)
    assert "holds 2 GGUF files; name one of them" in said(tmp_path)
    assert "is not there" in said(tmp_path / "none.gguf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert "pip install 'modulant[weights]'" in said(tmp_path / "other.gguf")
