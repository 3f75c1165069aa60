"""A family that is not known: kinds by names, every matrix measured, nothing that its code would have to say."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BartConfig, BartForConditionalGeneration, MambaConfig, MambaForCausalLM

from modulant.geometry import effective_ranks
from probes.topology import page
from probes.topology.layout import layout_of
from probes.topology.names import layout_by_names
from probes.topology.reader import Weights
from tests.probes.topology.test_command import figures_alone
from tests.tiny_families import MASKED, build

SIZES = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4}


def test_a_bart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    BartForConditionalGeneration(BartConfig(vocab_size=97, **SIZES, **HEADS)).save_pretrained(tmp_path / "bart")
    found = figures_alone(tmp_path / "bart", tmp_path / "out")
    rows = found["rows"]
    tensors = load_file(tmp_path / "bart" / "model.safetensors")
    matrices = {name for name, tensor in tensors.items() if tensor.ndim == 2 and len(tensor) > 1}
    assert matrices == {row["name"] for row in rows["matrices"]}
    kinds = {row["name"]: row["kind"] for row in rows["matrices"]}
    assert kinds["model.decoder.layers.1.encoder_attn.out_proj.weight"] == "cross_o"
    assert kinds["model.encoder.layers.0.fc1.weight"] == "mlp_up"
    assert kinds["model.shared.weight"] == "embedding"
    assert {row["location"] for row in rows["between"]} == {"encoder", "decoder"}
    assert found["population"]["heads"] == found["population"]["neurons"] == found["population"]["norms"] == 0
    weight = tensors["model.encoder.layers.0.self_attn.q_proj.weight"]
    wanted = effective_ranks(torch.linalg.svdvals(weight.double()))["stable_rank"]
    (row,) = (row for row in rows["matrices"] if row["name"] == "model.encoder.layers.0.self_attn.q_proj.weight")
    assert row["stable_rank"] == pytest.approx(wanted)
    assert row["rms_over_init"] is None
    assert "**No known family** (bart)" in page.markdown(found, rows, [])
    assert len(page.charts(found, rows)) == 6  # ranks, spectra and likeness, of two stacks


def test_a_model_without_attention(tmp_path: Path) -> None:
    config = MambaConfig(vocab_size=97, hidden_size=16, num_hidden_layers=2, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path / "mamba")
    rows = figures_alone(tmp_path / "mamba", tmp_path / "out")["rows"]["matrices"]
    assert {"backbone.layers.1.mixer.in_proj.weight", "backbone.embeddings.weight"} <= {row["name"] for row in rows}


def test_experts_and_unlike_biases_are_other() -> None:
    """As a SwitchTransformers' files have them."""
    block = "encoder.block.1.layer"
    shapes = {f"{block}.1.mlp.experts.expert_{i}.{kind}.weight": (4, 4) for i in range(2) for kind in ("wi", "wo")}
    shapes |= {f"{block}.0.SelfAttention.{kind}.weight": (4, 4) for kind in "qkvo"}
    shapes[f"{block}.0.SelfAttention.relative_attention_bias.weight"] = (32, 4)
    layout = layout_by_names(shapes)
    assert {kind for name, kind in layout.kinds.items() if "expert" in name or "bias" in name} == {"other"}
    assert [one.kinds for block in layout.blocks for one in block.tensors] == [
        (f"self_{kind}",) for kind in ("k", "o", "q", "v")
    ]
    assert len(layout.tables) == 5


@pytest.mark.parametrize("model_type", ["llama", "t5", *MASKED])
def test_names_give_the_kinds_of_known_families(model_type: str, tmp_path: Path) -> None:
    """Where nothing is fused."""
    model = build(model_type)
    model.save_pretrained(tmp_path)
    weights = Weights(str(tmp_path))
    wanted = layout_of(model_type, model.config, weights.names).kinds
    found = layout_by_names({name: weights.shape(name) for name in weights.names}).kinds
    parts = {name for name, kind in wanted.items() if kind.startswith(("self_", "cross_", "mlp_"))}
    alike = {name for name in parts if found[name] == wanted[name]}
    if model_type != "modernbert":  # Wqkv, Wi
        assert parts - alike == set()
