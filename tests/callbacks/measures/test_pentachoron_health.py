"""PentachoronHealth in real runs: its figures, every reference, the stop, a backbone that is out from the start."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from callbacks import PentachoronHealth
from callbacks.measures.representations import entry_representations
from callbacks.saving.artifact import weights_of
from callbacks.saving.checkpoints import RunCheckpoint, result_of
from callbacks.saving.files import AtomicCheckpointIO
from modulant.geometry import coefficient_of_variation, gaussian_null_volumes, pentachoron_cv


def test_the_cv_is_over_all_active_dimensions_and_no_others(tiny: ModuleType) -> None:
    look, module = PentachoronHealth(n=300, seed=3, null_repeats=10), tiny.TinyT5()
    trainer = tiny.make_trainer(callbacks=[look])
    (got,) = trainer.validate(module, datamodule=tiny.TinyWords(), verbose=False)
    base, now = (entry_representations(trainer, module, base=b)[:, :24] for b in (True, False))
    assert got["pentachoron/cv"] == pytest.approx(pentachoron_cv(now, 300, 3).item(), rel=1e-5)
    assert got["pentachoron/original/cv"] == pytest.approx(pentachoron_cv(base, 300, 3).item(), rel=1e-5)
    assert got["pentachoron/reference"] == got["pentachoron/original/cv"]
    clouds = gaussian_null_volumes(now, 300, 3, 10)
    null = torch.stack([coefficient_of_variation(volumes) for volumes in clouds]).double()
    assert got["pentachoron/null"] == pytest.approx(null.mean().item(), rel=1e-5)
    assert got["pentachoron/z"] == pytest.approx(((got["pentachoron/cv"] - null.mean()) / null.std()).item(), rel=1e-3)


def test_a_drift_from_the_base_ends_the_training_after_patience(
    tiny: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    look = PentachoronHealth(tolerance=1e-6, patience=2, n=200)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=9, num_sanity_val_steps=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    # Unhealthy already at step 0, where the modulator is not the identity; that is no check of the training's.
    assert [step for step, _ in trainer.logger.seen["pentachoron/cv"]] == [0, 9, 19]
    assert trainer.global_step == 20
    assert look.last_healthy_step is None
    assert look.stop_reason is not None
    assert "at 2 checks in a row" in look.stop_reason
    assert capsys.readouterr().out.count(look.stop_reason) == 1
    assert json.loads(json.dumps(look.summary(), allow_nan=False))["stop_reason"] == look.stop_reason


def test_the_last_healthy_checkpoint_outlives_the_stop(tiny: ModuleType, tmp_path: Path) -> None:
    # Distances from the base: 0.047 untrained, 0.041 after an epoch, then 0.050, 0.055 and 0.053.
    look, checkpoint = PentachoronHealth(tolerance=0.045, patience=3, n=200), RunCheckpoint()
    trainer = tiny.make_trainer(
        callbacks=[look, checkpoint], enable_checkpointing=True, plugins=[AtomicCheckpointIO()], max_epochs=9
    )
    module = tiny.TinyT5()
    trainer.fit(module, datamodule=tiny.TinyWords())
    assert (trainer.global_step, look.last_healthy_step) == (40, 10)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.ckpt"))
    assert kept == ["step_00000010.ckpt", "step_00000030.ckpt", "step_00000040.ckpt"]
    result = result_of(trainer)
    assert (result.step, result.reason) == (10, "the last checkpoint that was healthy")
    now = module.modulator.alphas.detach().clone()
    with weights_of(module, result):
        assert not torch.equal(module.modulator.alphas, now)
    assert torch.equal(module.modulator.alphas, now)


@pytest.mark.parametrize("settings", [{"tolerance": 1.0}, {"tolerance": 1e-6, "stop": False}])
def test_a_healthy_run_or_one_that_is_only_measured_goes_on(tiny: ModuleType, settings: dict[str, float]) -> None:
    look = PentachoronHealth(patience=1, n=100, **settings)
    trainer = tiny.make_trainer(callbacks=[look])
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    assert (trainer.global_step, look.stop_reason) == (20, None)


@pytest.mark.parametrize("reference", ["band", 3.0])
def test_a_backbone_that_is_out_from_the_start_is_told_at_once_and_stops_nothing(
    tiny: ModuleType, capsys: pytest.CaptureFixture[str], reference: str | float
) -> None:
    look = PentachoronHealth(reference=reference, tolerance=1e-4, patience=1, n=100)
    trainer = tiny.make_trainer(callbacks=[look])
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    assert (trainer.global_step, look.stop_reason) == (20, None)
    assert look.out_from_the_start is not None
    assert "the frozen backbone's own CV is" in look.out_from_the_start
    assert capsys.readouterr().err.count(look.out_from_the_start) == 1
    assert look.summary()["healthy"] is False


def test_the_null_moves_with_the_cloud(tiny: ModuleType) -> None:
    trainer = tiny.make_trainer(callbacks=[PentachoronHealth(reference="null", tolerance=9.0, n=100)])
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    assert trainer.logger.seen["pentachoron/reference"] == trainer.logger.seen["pentachoron/null"]
    assert len({value for _, value in trainer.logger.seen["pentachoron/null"]}) == 3


def test_a_bare_encoder_is_measured_and_without_a_base_nothing_is_judged(tiny: ModuleType) -> None:
    look = PentachoronHealth(tolerance=1e-9, patience=1, n=100)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=1)
    trainer.fit(tiny.TinyT5(modulated=False, lr=1e-3), datamodule=tiny.TinyWords())
    assert len(trainer.logger.seen["pentachoron/cv"]) == 2
    assert "pentachoron/reference" not in trainer.logger.seen
    assert look.stop_reason is None


def test_its_state_goes_through_a_checkpoint(tiny: ModuleType, tmp_path: Path) -> None:
    look, again = PentachoronHealth(n=100), PentachoronHealth(n=100)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again.load_state_dict(torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]["PentachoronHealth"])
    assert again.summary() == look.summary()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "bases"}, "reference is 'bases'; it must be one of base, band, null, a number above 0"),
        ({"reference": -0.2}, "reference is -0.2; it must be one of base, band, null, a number above 0"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"patience": 0}, "patience is 0"),
        ({"n": 1}, "n is 1"),
    ],
)
def test_senseless_settings_are_errors(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PentachoronHealth(**settings)


@pytest.mark.slow
def test_two_ranks_see_and_decide_what_one_does(tmp_path: Path) -> None:
    script = Path(__file__).with_name("tiny.py")
    root = script.parents[3]
    seen = []
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        folder.mkdir()
        subprocess.run(
            [sys.executable, str(script), str(folder), str(ranks)],
            check=True,
            timeout=200,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        seen += [json.loads(path.read_text()) for path in sorted(folder.glob("rank_*.json"))]
    for run in seen:
        for stage in ("validate", "fit"):
            assert run[stage][1].pop("seconds") > 0  # each rank's own
    alone, first, second = seen
    assert first == second
    assert first["validate"][1]["last"] == pytest.approx(alone["validate"][1]["last"], abs=1e-6)
    assert first["validate"][2]["last"] == pytest.approx(alone["validate"][2]["last"], rel=1e-4)
    assert first["fit_steps"] == alone["fit_steps"] == 20
    assert first["fit"][2]["stop_reason"] is not None
    assert len(first["fit_health"]) == 2 * (1 + 3 * 8), "two layers, three experts; the mean of both ranks' figures"
    assert all([step for step, _ in points] == [0, 4, 9, 14, 19] for points in first["fit_health"].values())
    pushes = [dict(run["fit_health"]["field/layer_00/push"]) for run in (first, alone)]
    assert pushes[0][0] == pytest.approx(pushes[1][0], rel=1e-5)  # the ranks have the same batches
