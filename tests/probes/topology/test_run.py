"""A run's folder: its backbone is measured, and what an adapter adds to it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from modulant.geometry import effective_ranks
from probes.topology import page
from probes.topology.run import subject_of
from tests.probes.topology.test_command import figures_alone
from tests.tiny_families import build

CONFIGS: dict[str, dict[str, Any]] = {
    "modulator/modulator_config.json": {"modulator": "FieldModulator", "backbone": "BASE"},
    "adapter/adapter_config.json": {"peft_type": "IA3", "base_model_name_or_path": "BASE"},
    "config.yaml": {"seed_everything": 42, "model": {"class_path": "modulators.TunedT5", "backbone": "BASE"}},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    build("t5").save_pretrained(folder)
    return folder


def left_by_a_run(folder: Path, file: str, base: Path) -> Path:
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(CONFIGS[file]).replace("BASE", str(base)))
    return folder


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("modulator/modulator_config.json", "FieldModulator, which changes the stream and no weights"),
        ("adapter/adapter_config.json", "(IA3)"),
        ("config.yaml", "its checkpoints are not read"),
    ],
)
def test_the_backbone_of_a_run_is_named(file: str, said: str, base: Path, tmp_path: Path) -> None:
    subject = subject_of(str(left_by_a_run(tmp_path / "run", file, base)))
    assert subject.name == str(base)
    assert said in subject.note
    assert subject.adapter is None
    assert subject_of(str(base)).note == ""


def test_a_broken_run_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "modulator").mkdir()
    (tmp_path / "modulator" / "modulator_config.json").write_text("{")
    with pytest.raises(ValueError, match="the run cannot be read") as caught:
        subject_of(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model_type", ["t5", "gpt2"])
def test_what_a_lora_adds(model_type: str, tmp_path: Path) -> None:
    """As peft stores it: two factors a module, of the model with its head."""
    base = tmp_path / "base"
    build(model_type).save_pretrained(base)
    path, stored, out = {
        "t5": ("encoder.block.1.layer.0.SelfAttention.q", "encoder.block.1.layer.0.SelfAttention.q.weight", 32),
        "gpt2": ("transformer.h.1.attn.c_attn", "transformer.h.1.attn.c_attn.weight", 96),
    }[model_type]
    a, b = torch.randn(3, 32), torch.randn(out, 3)
    adapter = tmp_path / "run" / "adapter"
    adapter.mkdir(parents=True)
    about = {"peft_type": "LORA", "base_model_name_or_path": str(base), "r": 3, "lora_alpha": 6}
    (adapter / "adapter_config.json").write_text(json.dumps(about))
    key = f"base_model.model.{path}"
    save_file({f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b}, adapter / "adapter_model.safetensors")
    found = figures_alone(tmp_path / "run", tmp_path / "out", "--only", "norms")
    (row,) = found["rows"]["changes"]
    weight = load_file(base / "model.safetensors")[stored]
    change = 2 * (b.double() @ a.double())
    ranks = effective_ranks(torch.linalg.svdvals(change))
    assert row["share"] == pytest.approx(float(change.norm() / weight.norm()))
    assert row["stable_rank"] == pytest.approx(ranks["stable_rank"])
    assert 1 < row["nulls"]["stable_rank"] < 3
    kind = "self_q/encoder" if model_type == "t5" else "qkv/decoder"
    assert found["figures"][f"change/{kind}/stable_rank"] == row["stable_rank"]
    text = page.markdown(found, found["rows"], [])
    assert "What the adapter adds" in text
    assert "what it adds is measured apart" in text
    save_file({f"{key}x.lora_A.weight": a, f"{key}x.lora_B.weight": b}, adapter / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="has no place in the backbone"):
        figures_alone(tmp_path / "run", tmp_path / "out2", "--only", "norms")
