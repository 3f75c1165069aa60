"""AlphaConvergence in real runs: what it logs and when, rest, stopping, and its way through a checkpoint."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from callbacks import AlphaConvergence
from modulant.reports.run.rows import convergence


def test_alpha_of_each_layer_and_expert_is_logged_at_each_check(tiny: ModuleType) -> None:
    look, module = AlphaConvergence(every_n_steps=5), tiny.TinyT5()
    trainer = tiny.make_trainer(callbacks=[look])
    trainer.fit(module, datamodule=tiny.TinyWords())
    seen = trainer.logger.seen
    # Before the first step, then after 5, 10, 15 and 20; Lightning counts the batches from 0.
    assert [step for step, _ in seen["alpha/mean"]] == [0, 4, 9, 14, 19]
    assert seen["alpha/layer_00_k1"][0][1] == pytest.approx(0.2, abs=1e-6)
    alphas = module.modulator.alphas.detach()
    for layer in range(2):
        assert seen[f"alpha/layer_{layer:02d}"][-1][1] == pytest.approx(alphas[layer].mean().item(), abs=1e-6)
        for i, k in enumerate((1, 2, 4)):
            assert seen[f"alpha/layer_{layer:02d}_k{k}"][-1][1] == pytest.approx(alphas[layer, i].item(), abs=1e-6)
    assert seen["alpha/distance_to_0.29154"][-1][1] == pytest.approx(abs(alphas.mean().item() - 0.29154), abs=1e-6)
    assert trainer.callback_metrics["alpha/mean"].item() == pytest.approx(alphas.mean().item(), abs=1e-6)
    assert look.summary()["initial"]["alpha/mean"] == pytest.approx(0.2, abs=1e-6)
    assert look.summary()["final"]["alpha/mean"] == pytest.approx(alphas.mean().item(), abs=1e-6)
    assert look.converged_at is None


def test_layers_that_are_not_modulated_do_not_enter(tiny: ModuleType) -> None:
    trainer, module = tiny.make_trainer(callbacks=[AlphaConvergence(5)]), tiny.TinyT5(layers=[1])
    trainer.fit(module, datamodule=tiny.TinyWords())
    assert "alpha/layer_00" not in trainer.logger.seen
    last = module.modulator.alphas[1].mean().item()
    assert trainer.logger.seen["alpha/mean"][-1][1] == pytest.approx(last, abs=1e-6)


def test_several_batches_of_one_step_are_one_check(tiny: ModuleType) -> None:
    trainer = tiny.make_trainer(callbacks=[AlphaConvergence(2)], accumulate_grad_batches=2, max_epochs=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    assert [step for step, _ in trainer.logger.seen["alpha/mean"]] == [0, 1, 3]


@pytest.fixture
def pulled(tiny: ModuleType) -> Any:
    """A module whose α have an optimum, 0.25, and nothing else to learn."""

    class Pulled(tiny.TinyT5):  # type: ignore[name-defined, misc]
        def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
            return (self.modulator.alphas - 0.25).square().sum()

    return Pulled(lr=0.02)


def test_rest_is_found_and_may_stop_the_run(tiny: ModuleType, pulled: Any, capsys: pytest.CaptureFixture[str]) -> None:
    look = AlphaConvergence(every_n_steps=5, window=4, tolerance=0.01, stop=True)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=60)
    trainer.fit(pulled, datamodule=tiny.TinyWords())
    assert look.converged_at == trainer.global_step < 600
    assert pulled.modulator.alphas.detach().mean() == pytest.approx(0.25, abs=0.01)
    assert look.stop_reason is not None
    assert f"no alpha moved more than 0.01 over the last 4 checks, up to step {look.converged_at}" in look.stop_reason
    assert capsys.readouterr().out.count(look.stop_reason) == 1


def test_rest_alone_does_not_stop(tiny: ModuleType, pulled: Any) -> None:
    look = AlphaConvergence(every_n_steps=5, window=4, tolerance=0.01)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=60)
    trainer.fit(pulled, datamodule=tiny.TinyWords())
    assert look.converged_at is not None
    assert (trainer.global_step, look.stop_reason) == (600, None)


@pytest.mark.parametrize("lr", [0.0, 1e-5, 0.05])
def test_a_tolerance_that_no_alpha_can_leave_is_no_rest(tiny: ModuleType, lr: float) -> None:
    look = AlphaConvergence(every_n_steps=1, window=8, tolerance=1.0, stop=True)
    trainer = tiny.make_trainer(callbacks=[look])
    trainer.fit(tiny.TinyT5(lr=lr), datamodule=tiny.TinyWords())
    assert (look.converged_at, trainer.global_step) == (None, 20)
    found = look.summary()
    assert found["moved_in_window"] <= found["reach_in_window"] * (1 + 1e-3)
    # 7 steps of the rate that alphas learn with, all one way; α is between 0.001 and 0.35, and began at 0.2.
    slope = 0.349 * (0.199 / 0.349) * (0.150 / 0.349)
    assert found["reach_in_window"] == pytest.approx(7 * lr * slope, rel=0.3)
    assert found["walk_in_window"] == pytest.approx(7**0.5 * lr * slope, rel=0.3)


def test_a_report_without_a_learning_rate_is_not_headed_by_convergence() -> None:
    """Nor is one of a version that took an α for converged which had never moved."""
    found = {"converged_at": 190, "window": 20, "every_n_steps": 10, "tolerance": 0.0005, "moved_in_window": 0.0}
    alpha = {"initial": [[0.01], [0.01]], "final": [[0.01], [0.01]], "convergence": found}
    assert convergence(alpha).startswith("Not converged: no α has moved; its learning rate is zero")
    assert convergence(alpha | {"initial": [[0.01], [0.02]]}).startswith("Converged at step 190")


def test_a_resume_with_other_layers_begins_a_window_anew(tiny: ModuleType) -> None:
    first, second = (AlphaConvergence(every_n_steps=n, window=4, tolerance=1.0) for n in (2, 10))
    tiny.make_trainer(callbacks=[first], max_epochs=1).fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    second.load_state_dict(first.state_dict())
    tiny.make_trainer(callbacks=[second], max_epochs=1).fit(tiny.TinyT5(layers=[1]), datamodule=tiny.TinyWords())
    found = second.summary()
    assert found["checks"] == 2  # before the first step, and after the tenth
    assert found["moved_in_window"] <= found["reach_in_window"]


def test_an_alpha_that_does_not_learn_has_not_converged(tiny: ModuleType) -> None:
    module, look = tiny.TinyT5(), AlphaConvergence(every_n_steps=1, window=3, tolerance=1.0)
    module.modulator.alpha_logits.requires_grad_(False)
    trainer = tiny.make_trainer(callbacks=[look])
    trainer.fit(module, datamodule=tiny.TinyWords())
    assert look.converged_at is None


def test_of_a_schedule_that_ends_at_zero_the_rate_is_told(tiny: ModuleType) -> None:
    class Scheduled(tiny.TinyT5):  # type: ignore[name-defined, misc]
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / 20))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": falling, "interval": "step"}}

    look = AlphaConvergence(every_n_steps=1, window=4, tolerance=0.05)
    trainer = tiny.make_trainer(callbacks=[look])
    trainer.fit(Scheduled(), datamodule=tiny.TinyWords())
    assert look.converged_at is None
    assert look.summary()["rate_share"] == pytest.approx(0.05)
    told = convergence({"final": [[0.2]], "convergence": look.summary()})
    assert "so that rest is the schedule's" in told


def test_a_state_of_an_older_version_waits_for_a_window_of_its_own(tiny: ModuleType) -> None:
    look = AlphaConvergence(every_n_steps=2, window=4, tolerance=1.0)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    state = look.state_dict()
    older = {key: value for key, value in state.items() if key not in ("walks", "reach", "rates")}
    resumed = AlphaConvergence(every_n_steps=2, window=4, tolerance=1.0)
    resumed.load_state_dict(older)
    assert len(resumed.metric.snapshots) == 4
    assert not resumed.metric.converged
    assert resumed.summary()["rate_share"] is None


def test_validate_writes_the_same_figures(tiny: ModuleType) -> None:
    trainer = tiny.make_trainer(callbacks=[AlphaConvergence()])
    (figures,) = trainer.validate(tiny.TinyT5(), datamodule=tiny.TinyWords(), verbose=False)
    assert figures["alpha/mean"] == pytest.approx(0.2, abs=1e-6)
    assert "alpha/layer_01_k4" in figures


def test_without_a_modulator_nothing_happens(tiny: ModuleType) -> None:
    look = AlphaConvergence(1)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=1)
    trainer.fit(tiny.TinyT5(modulated=False, lr=1e-3), datamodule=tiny.TinyWords())
    assert not any(key.startswith("alpha") for key in trainer.logger.seen)
    assert look.summary()["final"] == {}


def test_its_state_goes_through_a_checkpoint(tiny: ModuleType, tmp_path: Path) -> None:
    looks = [AlphaConvergence(every_n_steps=2, window=4, tolerance=1.0) for _ in range(2)]
    trainer = tiny.make_trainer(callbacks=[looks[0]], max_epochs=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]["AlphaConvergence"]
    looks[1].load_state_dict(state)
    assert looks[1].summary() == looks[0].summary()
    assert len(looks[1].metric.snapshots) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every_n_steps": 0}, "every_n_steps is 0"),
        ({"window": 1}, "window is 1"),
        ({"tolerance": -1.0}, "tolerance is -1"),
    ],
)
def test_senseless_settings_are_errors(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlphaConvergence(**settings)
