"""Where matrices are: for every family, what is cut out of the files gives the queries that the model itself makes."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from modulant.backbones.families import parts_of
from modulant.backbones.families.base import at_path
from probes.topology.layout import Block, Layout, layout_of
from probes.topology.measure import attentions
from probes.topology.reader import Weights
from tests.tiny_families import ALL, CAUSAL, IMAGES, SEQ2SEQ, build, config_of, inputs_for


def saved(folder: Path, model_type: str, **more: Any) -> tuple[nn.Module, Weights, Layout]:
    model = build(model_type, **more)
    model.save_pretrained(folder)
    weights = Weights(str(folder))
    return model, weights, layout_of(model_type, model.config, weights.names)


def matrices(block: Block, weights: Weights) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for stored in block.tensors:
        assert stored.name is not None
        found |= stored.split(weights.read(stored.name), block.shape)
    return found


@pytest.mark.parametrize("model_type", ALL)
def test_every_tensor_is_counted_once(model_type: str, tmp_path: Path) -> None:
    _, weights, layout = saved(tmp_path, model_type)
    assert layout.kinds.keys() == set(weights.names)
    for block in layout.blocks:
        parts = matrices(block, weights)
        assert {"self_q", "self_k", "self_v", "self_o", "mlp_up", "mlp_down"} <= parts.keys()
        names = [stored.name for stored in block.tensors]
        assert len(set(names)) == len(names)
        assert sum(part.numel() for part in parts.values()) == sum(weights.read(n).numel() for n in names if n)
    assert sum(kind == "embedding" or kind == "patch" for kind in layout.kinds.values()) >= 1
    unknown = [name for name, kind in layout.kinds.items() if kind == "other"]
    assert all(re.search("pooler|head|transform|lambda", name) for name in unknown), unknown


def heard(model_type: str, model: nn.Module, side: str) -> dict[str, Tensor]:
    """What enters and leaves the projections of block 1, in a pass of the model."""
    parts = parts_of(model, side)
    block = parts.blocks[1]
    found: dict[str, Tensor] = {}
    hooks = []
    for kind, paths in parts.family.matrices.items():
        for path in paths:
            if (module := at_path(block, path)) is not None:
                name = f"{kind}:{path}"

                def keep(_: Any, args: Any, output: Tensor, name: str = name, module: Any = module) -> None:
                    bias = module.bias if module.bias is not None else 0
                    found[f"{name}:in"], found[f"{name}:out"] = args[0], output - bias

                hooks.append(module.register_forward_hook(keep))
    inputs = inputs_for(model_type)
    if model_type in SEQ2SEQ:
        inputs |= {"decoder_input_ids": inputs["input_ids"]}
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("model_type", ALL)
def test_extracted_matrices_make_what_the_modules_make(model_type: str, tmp_path: Path) -> None:
    model, weights, layout = saved(tmp_path, model_type)
    for location in dict.fromkeys(block.location for block in layout.blocks):
        passed = heard(model_type, model, location)
        (block,) = (one for one in layout.blocks if one.location == location and one.layer == 1)
        parts = matrices(block, weights)
        d, n, kv = block.shape.head_width, block.shape.n_heads, block.shape.n_kv_heads
        for key, output in passed.items():
            if not key.endswith(":out"):
                continue
            kind, entered = key.partition(":")[0], passed[key.removesuffix("out") + "in"]
            if kind == "qkv":  # as each model cuts it, by its source
                if model_type == "gpt_neox":
                    cut = output.unflatten(-1, (n, 3, d)).unbind(-2)
                    made = [one.flatten(-2) for one in cut]
                else:
                    made = list(output.split([n * d, kv * d, kv * d], -1))
                wanted = dict(zip(("self_q", "self_k", "self_v"), made, strict=True))
            elif kind == "wi":
                if output.shape[-1] == 2 * parts["mlp_down"].shape[1]:
                    wanted = dict(zip(("mlp_gate", "mlp_up"), output.chunk(2, -1), strict=True))
                else:
                    wanted = {"mlp_gate" if key.split(":")[1].endswith(("wi_0", "gate_proj")) else "mlp_up": output}
            else:
                wanted = {{"wo": "mlp_down"}.get(kind, kind if "_" in kind else f"self_{kind}"): output}
            for name, values in wanted.items():
                torch.testing.assert_close(entered @ parts[name].mT, values, atol=1e-5, rtol=1e-4, msg=f"{name} {key}")


@pytest.mark.parametrize("model_type", [name for name in ALL if name not in ("distilbert", "mpnet")])
def test_gains_are_folded_as_the_norm_before_applies_them(model_type: str, tmp_path: Path) -> None:
    """W_q of a block on its normalised input: the folded matrix on the raw input, but for the input's length."""
    model, weights, layout = saved(tmp_path, model_type)
    parts = parts_of(model, layout.blocks[0].location)
    block, module = layout.blocks[1], parts.blocks[1]
    norm = block.norms.get("self")
    if norm is None:
        assert model_type in ("bert", "roberta")
        return
    before = next(
        at_path(module, path)
        for path in ("layer.0.layer_norm", "ln_1", "input_layernorm", "attn_norm", "layernorm_before", "norm1",
                     "layer_norm1")
        if at_path(module, path) is not None
    )  # fmt: skip
    x = torch.randn(5, block.shape.d_model)
    bias = getattr(before, "bias", None)
    normed = before(x) - (0 if bias is None else bias)
    length = x - x.mean(-1, keepdim=True) if norm.centred else x
    scale = length.square().mean(-1, keepdim=True).sqrt()
    q = matrices(block, weights)["self_q"]
    assert norm.gain is not None
    folded = norm.fold(q, weights.read(norm.gain))
    torch.testing.assert_close(x @ folded.mT / scale, normed @ q.mT, atol=1e-4, rtol=1e-3)


def test_heads_of_shared_keys_and_their_norms(tmp_path: Path) -> None:
    """Qwen3: 4 heads of queries share 2 of keys, and both are scaled after their projection."""
    _, weights, layout = saved(tmp_path, "qwen3")
    block = layout.blocks[1]
    parts = matrices(block, weights)
    queries, keys = dict(attentions(block, parts, weights))["self_qk"]
    assert queries.shape == keys.shape == (4, 8, 32)
    gain = weights.read("model.layers.1.input_layernorm.weight")
    for head in range(4):
        q = weights.read("model.layers.1.self_attn.q_norm.weight").unsqueeze(1) * parts["self_q"][8 * head :][:8] * gain
        k = weights.read("model.layers.1.self_attn.k_norm.weight").unsqueeze(1)
        k = k * parts["self_k"][8 * (head // 2) :][:8] * gain
        torch.testing.assert_close(queries[head], q)
        torch.testing.assert_close(keys[head], k)


def test_old_names_of_a_vit(tmp_path: Path) -> None:
    """Files of the hub name a ViT's parts otherwise than transformers 5 does."""
    _, _, layout = saved(tmp_path, "vit")
    renamed = sum(file != module for file, module in layout.modules.items())
    assert renamed > 40
    assert all(stored.name for block in layout.blocks for stored in block.tensors)


def test_a_gated_dinov2_and_both_towers_of_a_clip(tmp_path: Path) -> None:
    model, weights, layout = saved(tmp_path / "giant", "dinov2", use_swiglu_ffn=True)
    found = matrices(layout.blocks[1], weights)
    for kind in ("gate", "up", "down"):
        torch.testing.assert_close(found[f"mlp_{kind}"], model.get_parameter(f"encoder.layer.1.mlp.{kind}_proj.weight"))
    towers = [config_of(name).to_dict() for name in ("clip_text_model", "clip_vision_model")]
    clip = CLIPModel(CLIPConfig(text_config=towers[0], vision_config=towers[1], projection_dim=16))
    clip.save_pretrained(tmp_path / "clip")
    layout = layout_of("clip", clip.config, Weights(str(tmp_path / "clip")).names)
    places = [(side, layer) for side in ("text", "vision") for layer in range(3)]
    assert [(block.location, block.layer) for block in layout.blocks] == places
    assert all(stored.name for block in layout.blocks for stored in block.tensors)


@pytest.mark.parametrize("model_type", [*CAUSAL, *IMAGES])
def test_locations(model_type: str, tmp_path: Path) -> None:
    _, _, layout = saved(tmp_path, model_type)
    wanted = {"clip_text_model": "text", "clip_vision_model": "vision"}
    side = wanted.get(model_type, "decoder" if model_type in CAUSAL else "encoder")
    assert [(block.location, block.layer) for block in layout.blocks] == [(side, layer) for layer in range(3)]
