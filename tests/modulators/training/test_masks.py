"""A mask prepared from what the host knows: the same numbers as transformers' own, to the bit."""

from typing import Any

import pytest
import torch
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)

from modulant.backbones.families import parts_of
from modulant.corpus.ragged import training_batch
from modulators import FieldModulator, attach, stream_of
from modulators.training.masks import prepared_mask
from tests.tiny_families import MASKED, build

KINDS = {
    "T5": (T5Config, T5ForConditionalGeneration),
    "MT5": (MT5Config, MT5ForConditionalGeneration),
    "UMT5": (UMT5Config, UMT5ForConditionalGeneration),
}
SIZES = {"vocab_size": 50, "d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_layers": 2}


def model_of(kind: str, **more: Any) -> Any:
    configure, build = KINDS[kind]
    return build._from_config(configure(**SIZES, decoder_start_token_id=0), **more).requires_grad_(False).eval()


def batch_of(lengths: list[int]) -> dict[str, Any]:
    rows = [torch.randint(2, 50, (length,)).numpy() for length in lengths]
    return training_batch(rows, [row[: 1 + i % 3] for i, row in enumerate(rows)], pad_id=0)


def learned(model: Any, batch: dict[str, Any], mask: torch.Tensor | None) -> list[torch.Tensor]:
    """Loss, encoder output, and the modulator's gradients."""
    torch.manual_seed(1)
    modulator = FieldModulator(stream_of(model.config), initial_alpha=0.2)
    handle = attach(model, modulator)
    output = model(input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"], use_cache=False)
    output.loss.backward()
    handle.remove()
    return [output.loss, output.encoder_last_hidden_state, *(p.grad for p in modulator.parameters())]


@pytest.mark.parametrize("lengths", [[9, 3, 7], [64, 70, 80], [5, 5, 5]], ids=["padded", "long", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_to_the_bit(kind: str, lengths: list[int]) -> None:
    model, batch = model_of(kind), batch_of(lengths)
    assert batch["padded"] is (len(set(lengths)) > 1)
    mask = prepared_mask(model.config, batch["attention_mask"], batch["padded"])
    ours, theirs = learned(model, batch, mask), learned(model, batch, batch["attention_mask"])
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_full_batch_has_none_and_a_padded_one_does_not_grow() -> None:
    model = model_of("T5")
    assert prepared_mask(model.config, batch_of([5, 5])["attention_mask"], False) is None
    mask = prepared_mask(model.config, batch_of([5, 2])["attention_mask"], True)
    assert mask is not None
    assert mask.tolist() == [[[[True] * 5]], [[[True] * 2 + [False] * 3]]]


def test_what_nobody_knows_and_other_attention_are_left_to_transformers() -> None:
    mask = batch_of([5, 2])["attention_mask"]
    assert prepared_mask(model_of("T5").config, mask, None) is mask
    assert prepared_mask(model_of("T5", attn_implementation="eager").config, mask, True) is mask


@pytest.mark.parametrize("lengths", [[9, 3, 7], [64, 70, 80], [5, 5, 5]], ids=["padded", "long", "full"])
@pytest.mark.parametrize("model_type", [*MASKED, "t5"])
def test_of_any_encoder_too(model_type: str, lengths: list[int]) -> None:
    """ModernBERT's blocks see a window each; MPNet's attention is its own."""
    stack = parts_of(build(model_type, head=False)).stack
    batch = batch_of(lengths)
    mask = prepared_mask(stack.config, batch["attention_mask"], batch["padded"])
    assert (mask is None) is (not batch["padded"] and model_type != "mpnet")
    ours, theirs = (
        stack(input_ids=batch["input_ids"], attention_mask=given).last_hidden_state
        for given in (mask, batch["attention_mask"])
    )
    real = batch["attention_mask"].bool()
    assert torch.equal(ours[real], theirs[real])
