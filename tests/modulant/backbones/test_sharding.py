"""Two processes that share what is frozen, or only check it: equal results, and what they hold and send."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from modulant.backbones.weights import stored_tensors
from modulators import load_t5
from tests import jobs, runs, worlds

# fp32's rounding in other orders; AdamW's division makes it no smaller. Measured: 2e-7 of a loss, 1e-7 of a weight.
LOSS = 1e-6  # relative
WEIGHT = 2e-6  # absolute, of weights of about 0.1 after 14 steps of 0.01
PARTS: tuple[dict[str, int], ...] = ({"limit_train_batches": 3}, {"overfit_batches": 3})  # of an epoch

pytestmark = [
    pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def untied_backbone(folder: Path) -> str:
    """As T5 v1.1 is: a gated feed-forward layer, and a separate output head."""
    torch.manual_seed(1)
    sizes = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 18, "num_heads": 4, "num_layers": 2}
    config = T5Config(**sizes, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(config)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 16))
    model.save_pretrained(folder)
    return str(folder)


def off(found: dict[str, Any], expected: dict[str, Any], skipped: int = 0) -> list[str]:
    """What a training learned otherwise than another, whose first steps are left out."""
    wrong = []
    losses = torch.tensor(expected["losses"][skipped:])
    if not torch.allclose(torch.tensor(found["losses"]), losses, rtol=LOSS, atol=0):
        wrong.append(f"losses: {found['losses']} for {losses.tolist()}")
    for key, weight in expected["weights"].items():
        if not torch.allclose(found["weights"][key], weight, rtol=0, atol=WEIGHT):
            wrong.append(f"{key}: off by {(found['weights'][key] - weight).abs().max():.2g}")
    return wrong


@pytest.mark.slow
def test_two_ranks_of_a_sharded_backbone(tmp_path: Path) -> None:
    """One start of the processes serves all checks, since it is slow."""
    wordnet, backbone = str(runs.small_wordnet(tmp_path / "wordnet", 48)), runs.tiny_backbone(tmp_path / "backbone")
    train = partial(jobs.training, wordnet=wordnet, backbone=backbone)
    out = str(tmp_path / "out")
    validate = {"wordnet": wordnet, "backbone": backbone, "folder": out}
    work = [
        partial(train, 4, folder=str(tmp_path / "run"), sharded=True, save_at=6),
        partial(train, 4, folder=out, sharded=True, gradient_checkpointing=True, accumulate=2),
        *(partial(train, 4, folder=out, sharded=True, accumulate=2, **part) for part in PARTS),
        partial(jobs.validation, 5, sharded=True, **validate),
        partial(jobs.hook_order, untied_backbone(tmp_path / "untied")),
        partial(jobs.other_weights, backbone),
        partial(jobs.wire, backbone, out),
    ]
    found = worlds.together(2, work, tmp_path / "world")
    alone = train(8, folder=out)
    accumulated = [train(8, folder=out, accumulate=2, **part) for part in ({}, *PARTS)]
    checkpoint = str(tmp_path / "run" / "step_6.ckpt")
    resumed = train(8, folder=out, resume=checkpoint)  # by one process, which deals nothing out
    figures = jobs.validation(5, **validate)
    width = load_t5(backbone)[0].config.d_model
    total, shared, norms = alone["held"], 4 * load_t5(backbone)[0].shared.weight.numel(), 2 * 4 * width

    saved = torch.load(checkpoint, weights_only=True)
    assert all(type(value) is torch.Tensor for value in saved["state_dict"].values())
    assert saved["state_dict"].keys() == alone["weights"].keys()
    for training, *added_up, validated, order, refused, sent in found:
        assert not off(training, alone)
        assert not [off(one, other) for one, other in zip(added_up, accumulated, strict=True) if off(one, other)]
        # after an evaluation each stack's last norm is still whole, as FSDP leaves what a backward pass begins with
        assert training["held"] == shared + (total - shared) // 2 + norms // 2
        assert validated == pytest.approx(figures, rel=1e-5, abs=1e-6, nan_ok=True)
        assert order["same"]
        assert order["seen"] == [[0, True, "torch.float32"], [1, True, "torch.float32"]]
        assert order["dropped"]
        assert refused.startswith("model.backbone: rank 1 of 2 started with other frozen weights than rank 0")
        # beyond what learns: headers, and at the start the digests, shapes and buckets
        assert sent["trainable"] <= sent["a step"] < sent["trainable"] + 1500
        assert sent["at the start"] < sent["trainable"] + 3000
    assert not off(resumed, alone, skipped=6)


@pytest.mark.parametrize("layout", ["whole", "in parts", "pickled"])
def test_rows_are_read_from_every_layout(layout: str, tmp_path: Path) -> None:
    model, _ = load_t5(runs.tiny_backbone(tmp_path / "tiny"))
    folder = tmp_path / "backbone"
    if layout == "pickled":
        folder.mkdir()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder, max_shard_size="20KB" if layout == "in parts" else "1GB")
    stored = dict(stored_tensors(str(folder)))
    if layout == "in parts":
        assert len(list(folder.glob("*.safetensors"))) > 2
    for name, tensor in model.named_parameters():
        assert torch.equal(stored[name](1, 3), tensor[1:3])


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none of model\.safetensors"):
        dict(stored_tensors(str(tmp_path)))
