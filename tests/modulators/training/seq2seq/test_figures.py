"""ModulatedT5: its losses, answers and descriptions are what they say."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from modulant.backbones.t5 import load_backbone
from modulators import FieldModulator, ModulatedT5, Modulator
from tests.modulators.training.fits import built, loader, trainer


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
def test_loss_from_shifted_targets_in_float64(
    backbones: dict[str, str], variant: str, tokens: dict[str, Tensor]
) -> None:
    module = built(ModulatedT5(FieldModulator, backbone=backbones[variant]), loud=True)
    output = module(tokens)
    labels = tokens["labels"]
    # The decoder sees the start token and each target but the last.
    shifted = torch.zeros_like(labels)
    shifted[:, 1:] = labels[:, :-1].clamp(min=0)
    hidden = module.encode(tokens["input_ids"], tokens["attention_mask"])
    decoded = module.model.decoder(
        input_ids=shifted,
        encoder_hidden_states=hidden,
        encoder_attention_mask=tokens["attention_mask"],
        use_cache=False,
    ).last_hidden_state.double()
    if variant == "v1_0":
        decoded = decoded * 32**-0.5  # tied embeddings
    scores = decoded @ module.model.lm_head.weight.double().T
    losses = [
        torch.logsumexp(scores[row, place], 0) - scores[row, place, labels[row, place]]
        for row in range(4)
        for place in range(5)
        if labels[row, place] != -100
    ]
    assert len(losses) == 12
    assert output.loss.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
    # Unshifted targets, the source's, give another loss.
    unshifted = module.model(
        input_ids=tokens["input_ids"],
        attention_mask=tokens["attention_mask"],
        decoder_input_ids=labels.clamp(min=0),
        labels=labels,
    ).loss
    assert abs(unshifted.item() - output.loss.item()) > 1e-3


def slow_answers(module: ModulatedT5, tokens: dict[str, Tensor], row: int, steps: int) -> list[int]:
    """Greedy decoding of one source without padding and without a cache."""
    length = int(tokens["attention_mask"][row].sum())
    ids = tokens["input_ids"][row : row + 1, :length]
    answer = [0]
    for _ in range(steps):
        logits = module.model(input_ids=ids, decoder_input_ids=torch.tensor([answer]), use_cache=False).logits
        answer.append(int(logits[0, -1].argmax()))
        if answer[-1] == 1:
            break
    return answer[1:]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_validation_figures(
    backbones: dict[str, str], tokens: dict[str, Tensor], tmp_path: Path, checkpointing: bool
) -> None:
    # Of v1.1, because a random model with tied embeddings answers with its last token again and again.
    module = built(
        ModulatedT5(FieldModulator, backbone=backbones["v1_1"], gradient_checkpointing=checkpointing), loud=True
    ).eval()
    with torch.no_grad():
        answers = [slow_answers(module, tokens, row, 5) for row in range(4)]
        assert all(len(set(answer)) > 2 for answer in answers)
        # Two targets are what it answers, one is longer, one differs in its last token.
        labels = torch.full((4, 5), -100)
        for row, answer in enumerate(answers):
            labels[row, : len(answer)] = torch.tensor(answer)
        labels[2, int((labels[2] != -100).sum()) - 1] = 77
        labels[3, :2] = torch.tensor([78, 1])
        batch = {**tokens, "labels": labels}
        right = [slow_answers(module, batch, row, 5)[: len(t)] == t for row, t in enumerate(map(real, labels))]
        logits = module(batch).logits
    assert right == [True, True, False, False]
    found = trainer(tmp_path).validate(module, loader(batch, 1), verbose=False)[0]
    assert found["val/exact_match"] == 0.5
    targets = labels != -100
    assert found["val/token_accuracy"] == pytest.approx((logits.argmax(-1) == labels)[targets].double().mean().item())
    loss = nn.functional.cross_entropy(logits[targets].double(), labels[targets])
    assert found["val/loss"] == pytest.approx(loss.item(), rel=1e-6)
    assert trainer(tmp_path).test(module, loader(batch, 1), verbose=False)[0] == {
        f"test/{name.removeprefix('val/')}": value for name, value in found.items()
    }


def real(labels: Tensor) -> list[int]:
    return [token for token in labels.tolist() if token != -100]


def test_some_layers(backbone: str, tokens: dict[str, Tensor]) -> None:
    modulated: list[int] = []

    class Telling(FieldModulator):
        def forward(self, residual: Tensor, layer: int, token_ids: Tensor | None = None) -> Tensor:
            modulated.append(layer)
            return super().forward(residual, layer, token_ids)

    module = built(ModulatedT5(Telling, backbone=backbone, layers=[2, 0]))
    assert module.layers == [0, 2]
    module.encode(tokens["input_ids"], tokens["attention_mask"])
    assert modulated == [0, 2]
    module(tokens).loss.backward()
    gradient = module.modulator.alpha_logits.grad
    assert gradient is not None
    assert [bool(row.any()) for row in gradient] == [True, False, True]


def test_static_and_base_and_random(backbone: str, tokens: dict[str, Tensor]) -> None:
    module, base = built(ModulatedT5(FieldModulator, backbone=backbone), loud=True), load_backbone(backbone)
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    assert torch.equal(module.static_embed(ids), base.shared(ids))
    original = base.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert module.handle is not None
    with module.handle.disabled():
        assert torch.equal(module.encode(ids, mask), original)
    assert not torch.allclose(module.encode(ids, mask), original, atol=1e-3)
    assert module.random_encoder()(ids, mask).shape == original.shape


def test_predictions(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    class Data(pl.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            from modulant.backbones.tokenizers import load_tokenizer

            self.tokenizer = load_tokenizer(backbone)

        def predict_dataloader(self) -> Any:
            inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
            return DataLoader([{**inputs, "prompts": ["a", "b", "c", "d"]}], batch_size=None)

    module = built(ModulatedT5(FieldModulator, backbone=backbone), loud=True)
    (rows,) = trainer(tmp_path).predict(module, datamodule=Data())
    assert [row.prompt for row in rows] == ["a", "b", "c", "d"]
    tokenizer = Data().tokenizer
    for name, disabled in (("original", True), ("modulated", False)):
        model: Any = load_backbone(backbone) if disabled else module.model
        answers = model.generate(
            tokens["input_ids"], attention_mask=tokens["attention_mask"], max_new_tokens=16, do_sample=False
        )
        expected = tokenizer.batch_decode(answers, skip_special_tokens=True)
        assert [getattr(row, name).text for row in rows] == expected


def test_describe(backbone: str) -> None:
    module = built(ModulatedT5(FieldModulator, backbone=backbone, layers=[1]))
    about = module.describe()
    assert about["frozen_parameters"] == sum(p.numel() for p in load_backbone(backbone).parameters())
    assert about["trainable_parameters"] == sum(p.numel() for p in module.modulator.parameters())
    assert (about["layers"], about["expert_names"], about["n_layers"]) == ([1], ["k1", "k2", "k4"], 3)
    assert isinstance(module.modulator, Modulator)
    assert torch.equal(module.active_dims, torch.arange(24))
