"""ModulatedT5: the modulator alone trains, in its groups, by its schedule; what cannot train is refused."""

import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from modulators import FieldModulator, LerpModulator, ModulatedT5, ResidualStream
from tests.modulators.training.fits import SMALL_LERP, loader, trainer

pytestmark = pytest.mark.filterwarnings("ignore:Found .* module.s. in eval mode at the start of training")


class LooksOn(pl.Callback):
    """Checks the backbone at every moment of a fit."""

    def __init__(self) -> None:
        self.looks = 0

    def _look(self, module: Any) -> None:
        self.looks += 1
        assert not any(part.training for part in module.model.modules()), "the backbone is in eval mode"
        assert all(p.grad is None and not p.requires_grad for p in module.model.parameters())

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)
        self.before = {name: value.clone() for name, value in pl_module.model.state_dict().items()}

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)
        assert pl_module.modulator.training
        for name, parameter in pl_module.modulator.named_parameters():
            assert parameter.grad is not None, name

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self._look(pl_module)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self._look(pl_module)
        assert not pl_module.modulator.training

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._look(pl_module)
        assert all(torch.equal(value, self.before[name]) for name, value in pl_module.model.state_dict().items())


@pytest.mark.parametrize("variant", ["v1_0", "v1_1"])
@pytest.mark.parametrize("modulator", [FieldModulator, SMALL_LERP])
def test_only_the_modulator_trains(
    backbones: dict[str, str], variant: str, modulator: Any, tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    module, look = ModulatedT5(modulator, backbone=backbones[variant], lr=0.01), LooksOn()
    before = {name: value.clone() for name, value in module.modulator.state_dict().items()}
    trainer(tmp_path, look).fit(module, loader(tokens), loader(tokens, 1))
    assert look.looks == 2 + 2 * (3 + 3 + 1) + 1  # start and end, per epoch steps and validation, the sanity check
    for name, parameter in module.modulator.named_parameters():
        assert not torch.equal(parameter, before[name]), name


class Groups(pl.Callback):
    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]
        self.kind = type(optimizer)
        self.groups = {
            group["name"]: (group["lr"], group["weight_decay"], {id(p) for p in group["params"]})
            for group in optimizer.param_groups
        }


@pytest.mark.parametrize(
    ("modulator", "expected"),
    [
        (FieldModulator, {"experts": (1e-3, 0.01), "gates": (1e-2, 0.01), "alphas": (5e-3, 0.0)}),
        (SMALL_LERP, {"geometry": (1e-2, 0.01), "alphas": (1e-2, 0.0)}),
    ],
)
def test_parameter_groups_reach_the_optimizer(
    backbone: str, modulator: Any, expected: dict[str, tuple[float, float]], tokens: dict[str, Tensor], tmp_path: Path
) -> None:
    module, seen = ModulatedT5(modulator, backbone=backbone, lr=1e-2, weight_decay=0.01), Groups()
    trainer(tmp_path, seen, max_epochs=1).fit(module, loader(tokens, 1), loader(tokens, 1))
    assert seen.kind is torch.optim.AdamW
    assert {name: pytest.approx(group[:2]) for name, group in seen.groups.items()} == expected
    parameters = [id(p) for p in module.modulator.parameters()]
    assert sorted(i for _, _, ids in seen.groups.values() for i in ids) == sorted(parameters)
    assert seen.groups["alphas"][2] == {id(module.modulator.alpha_logits)}


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_rate_follows_its_schedule(
    backbone: str, tokens: dict[str, Tensor], tmp_path: Path, schedule: Literal["cosine", "constant"]
) -> None:
    class Rates(pl.Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            self.seen.append(trainer.optimizers[0].param_groups[-1]["lr"])

    rates = Rates()
    module = ModulatedT5(SMALL_LERP, backbone=backbone, lr=1.0, schedule=schedule)
    trainer(tmp_path, rates).fit(module, loader(tokens), loader(tokens))
    falling = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    expected = falling if schedule == "cosine" else [1.0] * 6
    assert rates.seen == pytest.approx(expected, abs=1e-12)


def test_nothing_to_train_or_no_end(backbone: str, tokens: dict[str, Tensor], tmp_path: Path) -> None:
    class Fixed(LerpModulator):
        def __init__(self, stream: ResidualStream) -> None:
            super().__init__(stream, n_geometric_dims=4, learnable_alpha=False)
            self.requires_grad_(False)

    with pytest.raises(ValueError, match="no trainable parameter; use validate instead of fit"):
        trainer(tmp_path).fit(ModulatedT5(Fixed, backbone=backbone), loader(tokens, 1), loader(tokens, 1))
    for key in ("limit_train_batches", "max_steps"):
        with pytest.raises(ValueError, match=r"trainer: max_steps or limit_train_batches is 0, so that nothing"):
            trainer(tmp_path, **{key: 0}).fit(
                ModulatedT5(SMALL_LERP, backbone=backbone), loader(tokens, 1), loader(tokens, 1)
            )
    endless = trainer(tmp_path, max_epochs=-1)
    with pytest.raises(ValueError, match="falls as a cosine over inf steps; set max_epochs or max_steps"):
        endless.fit(ModulatedT5(SMALL_LERP, backbone=backbone), loader(tokens, 1), loader(tokens, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "lr is 0.0; it must be a number above 0"),
        ({"lr": float("nan")}, "lr is nan; it must be"),
        ({"lr": float("inf")}, "lr is inf; it must be"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; it must be a number of at least 0"),
        ({"layers": [3]}, "model.layers: layer 3 does not exist; the encoder has 3 layers, 0 … 2"),
        ({"layers": [0, 0]}, "model.layers is"),
        ({"layers": []}, "model.layers is"),
        ({"modulator": partial(LerpModulator, n_geometric_dims=0)}, "model.modulator: n_geometric_dims is 0"),
        ({"backbone": "./nowhere"}, "model.backbone: no folder"),
    ],
)
def test_bad_arguments_before_any_weight_is_read(backbone: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModulatedT5(**{"modulator": FieldModulator, "backbone": backbone, **arguments})
