"""ModulatedT5: what learns stays in fp32, whatever the precision; gradient checkpointing changes no bit."""

import re
from pathlib import Path
from typing import Any, get_args

import lightning.pytorch as pl
import pytest
import torch
import yaml
from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS
from torch import Tensor, nn

from modulators import FieldModulator, ModulatedT5, load_modulated, save_modulator
from modulators.arguments import check_precision
from tests.modulators.training.fits import SMALL_LERP, built, loader, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")


class BlockForwards:
    """Counts how often the forward of a model's blocks runs."""

    def __init__(self, model: Any) -> None:
        self.count = 0
        for block in [*model.encoder.block, *model.decoder.block]:
            inner = block.layer[0]  # the hook of a checkpointed block itself runs once; what is in it runs again
            inner.register_forward_hook(self._tick)

    def _tick(self, *_: Any) -> None:
        self.count += 1


@pytest.mark.parametrize("modulator", [FieldModulator, SMALL_LERP])
def test_gradient_checkpointing(backbone: str, modulator: Any, tokens: dict[str, Tensor]) -> None:
    gradients, forwards = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        module = built(ModulatedT5(modulator, backbone=backbone, gradient_checkpointing=checkpointing), loud=True)
        counter = BlockForwards(module.model)
        module(tokens).loss.backward()
        gradients.append({name: p.grad for name, p in module.modulator.named_parameters()})
        forwards.append(counter.count)
        dropouts = [part for part in module.model.modules() if isinstance(part, nn.Dropout)]
        assert dropouts
        assert not any(part.training for part in dropouts)
    assert forwards == [5, 10], "each block runs once more, in the backward pass"
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0, msg=name)


def test_gradient_checkpointing_is_off_where_answers_are_made(backbone: str, tmp_path: Path) -> None:
    module = built(ModulatedT5(FieldModulator, backbone=backbone, gradient_checkpointing=True))
    blocks = [*module.model.encoder.block, *module.model.decoder.block]
    assert all(block.training for block in blocks)
    module.eval()
    assert not any(block.training for block in blocks)
    module.train()
    assert all(block.training for block in blocks)


def test_a_fit_with_gradient_checkpointing_is_the_same_fit(
    backbone: str, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    ends = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        module = ModulatedT5(FieldModulator, backbone=backbone, lr=0.02, gradient_checkpointing=checkpointing)
        fit = trainer(tmp_path)
        fit.fit(module, loader(tokens), loader(tokens))
        ends.append((module.state_dict(), fit.callback_metrics))
    for name, value in ends[0][0].items():
        assert torch.equal(ends[1][0][name], value), name
    assert ends[0][1] == ends[1][1]


def test_bf16(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone, lr=0.02, backbone_dtype="bfloat16")
    fit = trainer(tmp_path)
    fit.fit(module, loader(tokens), loader(tokens))
    assert {p.dtype for p in module.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in module.modulator.parameters()} == {torch.float32}
    assert module.encode(tokens["input_ids"], tokens["attention_mask"]).dtype == torch.bfloat16
    exact = built(ModulatedT5(FieldModulator, backbone=backbone))
    exact.load_state_dict(module.state_dict())
    low, high = module(tokens).loss.item(), exact(tokens).loss.item()
    assert low == pytest.approx(high, rel=0.02)  # 8 bits of mantissa


class LearnsInFp32(pl.Callback):
    """Looks at what learns, in every step: before the optimizer, and at what it keeps."""

    def __init__(self) -> None:
        self.streams: list[tuple[torch.dtype, torch.dtype]] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.modulator.register_forward_hook(lambda _, args, out: self.streams.append((args[0].dtype, out.dtype)))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        assert {p.dtype for p in pl_module.modulator.parameters()} == {torch.float32}
        assert {p.grad.dtype for p in pl_module.modulator.parameters()} == {torch.float32}

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        state = trainer.optimizers[0].state
        kept = [state[p][name] for p in pl_module.modulator.parameters() for name in ("exp_avg", "exp_avg_sq")]
        assert {tensor.dtype for tensor in kept} == {torch.float32}
        assert any(tensor.any() for tensor in kept)


@pytest.mark.parametrize("modulator", [FieldModulator, SMALL_LERP])
def test_bf16_as_its_overlay_has_it(backbone: str, modulator: Any, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    """Weights and products in bf16; modulator, gradients and AdamW's state in fp32, and the loss near fp32's."""
    overlay = yaml.safe_load((Path(__file__).parents[4] / "configs" / "bf16.yaml").read_text())
    losses = []
    for arguments, precision in (({}, "32-true"), (overlay["model"]["init_args"], overlay["trainer"]["precision"])):
        torch.manual_seed(0)
        module = ModulatedT5(modulator, backbone=backbone, lr=0.02, **arguments)
        looks = LearnsInFp32()
        fit = trainer(tmp_path, looks, precision=precision)
        fit.fit(module, loader(tokens), loader(tokens))
        losses.append(fit.callback_metrics["train/loss"].item())
        low = torch.bfloat16 if arguments else torch.float32
        assert set(looks.streams) == {(low, low)}
    assert {p.dtype for p in module.model.parameters()} == {torch.bfloat16}
    assert losses[1] == pytest.approx(losses[0], rel=0.02)  # 8 bits of mantissa


NAMES = [name for kind in (_PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS) for name in get_args(kind)]
KEPT = ["32-true", "32", "bf16-mixed", "bf16", "16-mixed", "16"]


@pytest.mark.parametrize("precision", KEPT)
@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU", "ignore:.*for historical reasons")
def test_what_learns_stays_in_fp32(precision: Any, backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module, looks = ModulatedT5(FieldModulator, backbone=backbone, lr=0.02), LearnsInFp32()
    before = module.modulator.alphas.detach()
    fit = trainer(tmp_path, looks, precision=precision)
    fit.fit(module, loader(tokens), loader(tokens))
    assert not torch.equal(module.modulator.alphas, before)
    save_modulator(module.modulator, tmp_path / "modulator", backbone, module.layers)
    model, _ = load_modulated(tmp_path / "modulator")
    assert all(torch.equal(model.modulator.state_dict()[k], v) for k, v in module.modulator.state_dict().items())


@pytest.mark.parametrize("precision", sorted({*NAMES, "64"} - {*KEPT}))
@pytest.mark.filterwarnings("ignore:.*is supported for historical reasons")
def test_a_precision_that_casts_it(precision: Any, backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone)
    with pytest.raises((ValueError, ModuleNotFoundError)) as caught:  # Transformer Engine is not installed here
        trainer(tmp_path, precision=precision).fit(module, loader(tokens), loader(tokens))
    assert "transformer" in precision or re.match(r"trainer\.precision is .*--config bf16\.yaml", str(caught.value))
    assert module.model is None, "nothing was loaded"
    with pytest.raises(ValueError, match=rf"^trainer\.precision is {precision}, .*--config bf16\.yaml"):
        check_precision(precision)
