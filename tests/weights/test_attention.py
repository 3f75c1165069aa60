"""Attention of SmolLM2-135M: figures of a prompt and of texts as an independent NumPy program measured them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BertForMaskedLM

import probe
from modulant.backbones.opening import Backbone, open_model
from probes.attention.lens import Lens
from probes.attention.reading import forward
from probes.attention.texts import batches_of
from probes.opening import open_subject

pytestmark = [pytest.mark.weights, pytest.mark.timeout(900)]


def run(output: Path, *options: str) -> dict[str, Any]:
    assert probe.main(["attention", os.environ["TEST_WEIGHTS"], "--output", str(output), *options]) == 0
    found: dict[str, Any] = json.loads((output / "report.json").read_text())
    return found


def lens_of_the_last_layer(backbone: Backbone, inputs: Tensor, asked: Tensor | None) -> Tensor:
    lens = Lens.of(backbone)
    assert lens is not None
    with torch.inference_mode(), lens.stream(asked) as states:
        forward(backbone, inputs)
        return lens.logits(states[-1])


def test_the_lens_is_the_models_own_head() -> None:
    # In fp32 a head rounds logits of 20 to 3e-5, otherwise for one row than for five.
    backbone = open_model(os.environ["TEST_WEIGHTS"], "lm", dtype=torch.float64)
    inputs = torch.tensor([backbone.tokenizer.encode("The capital of France is")])
    with torch.inference_mode():
        theirs = backbone.model(input_ids=inputs).logits[:, -1]
    torch.testing.assert_close(lens_of_the_last_layer(backbone, inputs, None), theirs.float(), atol=1e-5, rtol=0)


def test_the_lens_of_minilm_is_its_head(tmp_path: Path) -> None:
    """Its stack is real, and its head, which its files lack, random; its table of tokens is the head's too."""
    bare = open_model("all-MiniLM-L6-v2")
    torch.manual_seed(0)
    model = BertForMaskedLM(bare.model.config)
    model.bert.load_state_dict(bare.model.state_dict())
    model.save_pretrained(tmp_path)
    bare.tokenizer.save_pretrained(tmp_path)
    subject = open_subject(str(tmp_path), "cpu", with_head=True)
    subject.backbone.model.double()
    (batch,) = batches_of(subject.backbone, subject.tokenizer, ["The capital of France is Paris."])
    assert batch.masked is not None
    assert batch.asked is not None
    assert subject.tokenizer.decode(batch.inputs[0, batch.asked]) == "paris"
    with torch.inference_mode():
        theirs = subject.backbone.model(input_ids=batch.masked).logits[0, batch.asked]
    found = lens_of_the_last_layer(subject.backbone, batch.masked, batch.asked)
    torch.testing.assert_close(found, theirs.float(), atol=1e-5, rtol=0)


def test_one_prompt(tmp_path: Path) -> None:
    figures = run(tmp_path, "--prompt", "The capital of France is")["figures"]
    known = {
        "layer_%02d/entropy": (0.783, 0.284, 0.655, 0.141, 0.490),
        "layer_%02d/sink": (0.421, 0.878, 0.528, 0.955, 0.706),
        "source/layer_%02d/coherence": (0.652, 0.911, 0.723, 0.956, 0.806),
        "source/layer_%02d/head_sync": (0.764, 0.953, 0.814, 0.998, 0.847),
    }
    for name, values in known.items():
        for layer, value in zip((0, 3, 10, 20, 29), values, strict=True):
            assert figures[name % layer] == pytest.approx(value, abs=6e-4), name % layer
    assert figures["next/confidence"] == pytest.approx(-1.481, abs=1e-3)
    assert figures["embedded/lens_entropy"] == pytest.approx(0, abs=5e-3)
    assert figures["layer_28/lens_entropy"] == pytest.approx(4.37, abs=5e-3)
    assert figures["layer_29/lens_entropy"] == pytest.approx(1.481, abs=1e-3)
    assert figures["lens/commit_layer"] == 30


def test_the_sink_is_the_collapse_and_prompts_are_no_evidence(tmp_path: Path) -> None:
    found = run(tmp_path)
    figures = found["figures"]
    layers = range(30)
    entropy, rest, sink, rate = (
        [figures[f"layer_{layer:02d}/{name}"] for layer in layers]
        for name in ("entropy", "entropy_without_sink", "sink", "sink_rate")
    )
    assert (max(entropy), min(entropy)) == pytest.approx((0.81, 0.15), abs=0.01)
    assert (max(sink), min(sink)) == pytest.approx((0.92, 0.10), abs=0.01)
    assert (max(rest), min(rest)) == pytest.approx((0.80, 0.52), abs=0.03)
    assert sum(value >= 0.98 for value in rate) in (21, 22)
    assert figures["sink/entropy_r"] == pytest.approx(-0.91, abs=0.01)
    # A drop into layer 20, where the sink goes from 0.64 to 0.90; without the sink another one.
    assert (figures["source/collapse_layer"], figures["collapse/layer"], figures["collapse_15/layer"]) == (19, 20, 20)
    assert figures["collapse/share"] == 1
    assert figures["collapse_15/share"] > 0.97
    assert figures["collapse/sink_before"] == pytest.approx(0.64, abs=0.01)
    assert figures["collapse/sink_after"] == pytest.approx(0.90, abs=0.01)
    assert (figures["collapse_without_sink/layer"], figures["collapse_15_without_sink/layer"]) == (1, 7)
    few = {"coherence": -0.60, "entropy": 0.57, "entropy_last": 0.56, "head_sync": -0.04, "sink_last": -0.56}
    for name, r in few.items():
        assert figures[f"confidence_15/{name}/r"] == pytest.approx(r, abs=6e-3), name
    assert found["intervals"]["confidence_15/coherence/r"] == pytest.approx((-0.82, -0.26), abs=0.03)
    assert figures["confidence_15/largest/p_family"] > 0.05
    # On 120 texts none of these is left; which texts they are moves r by 0.09.
    for name in few:
        assert abs(figures[f"confidence/{name}/r"]) < 0.25
        assert figures[f"confidence/{name}/p_family"] > 0.05
