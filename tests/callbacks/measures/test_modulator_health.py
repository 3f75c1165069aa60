"""ModulatorHealth in real runs: what it logs and when, and that a run with it is the run without it."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from callbacks import ModulatorHealth
from modulant.backbones.loading import enable_activation_checkpointing

FIGURES = {"gate", "gate_sd", "validity", "validity_sd", "deformation", "volume", "volume_cv", "degenerate"}
KEYS = {f"field/layer_0{layer}/push" for layer in (0, 1)}
KEYS |= {f"field/layer_0{layer}_k{k}/{figure}" for layer in (0, 1) for k in (1, 2, 4) for figure in FIGURES}


def fitted(tiny: ModuleType, every_n_steps: int, module: Any = None, **settings: Any) -> tuple[Any, Any]:
    trainer = tiny.make_trainer(callbacks=[ModulatorHealth(every_n_steps)], **settings)
    module = module or tiny.TinyT5()
    trainer.fit(module, datamodule=tiny.TinyWords())
    return trainer.logger.seen, module


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.modulator.state_dict().items()}


def test_every_figure_is_logged_at_the_first_step_and_every_nth(tiny: ModuleType) -> None:
    seen, _ = fitted(tiny, 5)
    assert seen.keys() >= KEYS
    assert {tuple(step for step, _ in seen[key]) for key in KEYS} == {(0, 4, 9, 14, 19)}


@pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training")
def test_figures_are_those_of_the_batch_as_it_meets_the_modulator(tiny: ModuleType) -> None:
    seen, _ = fitted(tiny, 5, tiny.TinyT5().eval(), max_epochs=1)  # without dropout
    _, module = fitted(tiny, 0, tiny.TinyT5().eval(), limit_train_batches=4, max_epochs=1, log_every_n_steps=1)
    (batch,) = list(tiny.TinyWords().train_dataloader())[4:5]
    with module.handle.observed() as found:
        module.backbone.encoder(batch)
    assert found.keys() == KEYS
    logged = {key: dict(seen[key])[4] for key in KEYS}
    assert logged == pytest.approx({key: found[key].item() for key in KEYS}, abs=1e-6)


def test_an_observed_run_is_the_same_run(tiny: ModuleType) -> None:
    (off, plain), (on, observed) = fitted(tiny, 0), fitted(tiny, 1)
    assert KEYS & off.keys() == set()
    assert on.keys() >= KEYS
    before, after = weights(plain), weights(observed)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_recomputed_blocks_are_observed_too(tiny: ModuleType) -> None:
    def checkpointed() -> Any:
        module = tiny.TinyT5()
        enable_activation_checkpointing(module.backbone)
        return module

    (plain, _), (seen, module) = fitted(tiny, 5), fitted(tiny, 5, checkpointed())
    assert any(block.gradient_checkpointing for block in module.backbone.encoder.block)
    for key in KEYS:
        assert seen[key] == [(step, pytest.approx(value, rel=1e-4, abs=1e-6)) for step, value in plain[key]]


def test_several_batches_of_one_step_are_observed_once(tiny: ModuleType) -> None:
    seen, _ = fitted(tiny, 2, accumulate_grad_batches=2, max_epochs=1)  # 5 steps
    assert [step for step, _ in seen["field/layer_00/push"]] == [0, 1, 3]


def test_what_cannot_be_observed_is_left_alone(tiny: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    seen, _ = fitted(tiny, 1, tiny.TinyT5(modulated=False), max_epochs=1)  # an encoder in pretraining
    assert KEYS & seen.keys() == set()
    module = tiny.TinyT5()
    module.compiled = True
    seen, _ = fitted(tiny, 1, module, max_epochs=1)
    assert KEYS & seen.keys() == set()
    assert capsys.readouterr().out.count("modulator_health: a compiled model is not observed") == 1


def test_a_step_that_fails_is_observed_no_longer(tiny: ModuleType) -> None:
    class Failing(tiny.TinyT5):  # type: ignore[name-defined, misc]
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            raise RuntimeError("boom")

    module = Failing()
    with pytest.raises(RuntimeError, match="boom"):
        fitted(tiny, 1, module)
    assert module.handle._settings == {}


def test_a_figure_that_is_no_number_is_left_out(tiny: ModuleType) -> None:
    module = tiny.TinyT5()
    with torch.no_grad():
        for expert in module.modulator.experts.values():
            expert.to_deform.weight.zero_()
            expert.to_deform.bias.copy_(-expert.template.flatten())  # all vertices at one point
    seen, _ = fitted(tiny, 5, module, limit_train_batches=1, max_epochs=1, log_every_n_steps=1)
    assert seen["field/layer_00_k4/degenerate"] == [(0, 1.0)]
    assert "field/layer_00_k4/volume_cv" not in seen
