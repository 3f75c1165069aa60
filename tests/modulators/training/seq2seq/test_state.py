"""ModulatedT5: its checkpoints and state dicts hold the modulator alone, and load into no other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modulators import FieldModulator, ModulatedT5
from tests.modulators.training.fits import SMALL_LERP, loader, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")


def test_a_checkpoint_holds_the_modulator_alone(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone, lr=0.05)
    fit = trainer(tmp_path)
    fit.fit(module, loader(tokens), loader(tokens))
    fit.save_checkpoint(tmp_path / "run.ckpt", weights_only=False)
    checkpoint = torch.load(tmp_path / "run.ckpt", weights_only=True)
    names = {name for name, _ in module.modulator.named_parameters()}
    assert checkpoint["state_dict"].keys() == {f"modulator.{name}" for name in names}
    n = sum(p.numel() for p in module.modulator.parameters())
    assert sum(value.numel() for value in checkpoint["state_dict"].values()) == n
    # And nowhere else is a tensor as large as the backbone's: weights, two moments, and little more.
    assert (tmp_path / "run.ckpt").stat().st_size < 3 * 4 * n + 60_000

    again = ModulatedT5(FieldModulator, backbone=backbone)
    figures = trainer(tmp_path).validate(again, loader(tokens), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
    for name, value in module.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    live = trainer(tmp_path).validate(module, loader(tokens), verbose=False)
    assert figures == live


def test_a_state_dict_goes_where_torch_wants_it(backbone: str) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone)
    outer = nn.ModuleDict({"inner": module})
    assert outer.state_dict().keys() == {f"inner.{name}" for name in module.state_dict()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("modulator.alpha_logits"), r"missing \['modulator.alpha_logits'\], not wanted none"),
        (lambda state: state.update({"modulator.x": torch.zeros(1)}), r"missing none, not wanted \['modulator.x'\]"),
        (
            lambda state: state.update({"modulator.alpha_logits": torch.zeros(3, 2)}),
            r"of another shape \['modulator.alpha_logits'\]",
        ),
        (lambda state: state.clear(), "missing"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_loading_asserts_the_exact_keys(backbone: str, change: Any, message: str, strict: bool) -> None:
    module = ModulatedT5(FieldModulator, backbone=backbone)
    state = module.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    change(state)
    with pytest.raises(ValueError, match=message) as error:
        module.load_state_dict(state, strict=strict)
    assert "\n" not in str(error.value)
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())


def test_a_state_dict_of_another_backbone(backbone: str) -> None:
    """Says so, with both shapes, and lists no more keys than tell."""
    state = ModulatedT5(FieldModulator, backbone="mini").state_dict()
    with pytest.raises(ValueError, match="of another modulator or backbone") as caught:
        ModulatedT5(FieldModulator, backbone=backbone).load_state_dict(state)
    line = str(caught.value)
    assert "(the first is 6 × 3 in it and 3 × 3 here)" in line
    assert f"model.backbone is {backbone}, of width 32 and 3 layers" in line
    assert "none" not in line
    assert "'modulator.experts.k2.to_deform.weight'] and 7 more" in line


def test_a_checkpoint_of_another_modulator(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    fit = trainer(tmp_path, max_epochs=1)
    fit.fit(ModulatedT5(FieldModulator, backbone=backbone), loader(tokens, 1), loader(tokens, 1))
    fit.save_checkpoint(tmp_path / "run.ckpt")
    other = ModulatedT5(SMALL_LERP, backbone=backbone)
    with pytest.raises(ValueError, match="this checkpoint is of another modulator"):
        trainer(tmp_path).validate(other, loader(tokens, 1), ckpt_path=tmp_path / "run.ckpt", weights_only=True)
