"""RelationalAlignment in real runs: figures equal the metric's own, lifts their definition, baselines come first."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

import metrics
from callbacks import RelationalAlignment
from callbacks.relational_alignment import lifts
from callbacks.representations import encode_population, entry_representations


def own_figures(points: torch.Tensor, words) -> dict[str, float]:
    metric = metrics.RelationalAlignment(words.path_distances(), words.population.held_out)
    metric.update(points)
    return {key: value.item() for key, value in metric.compute().items()}


def test_validate_writes_figures_baselines_and_lifts(tiny: ModuleType) -> None:
    trainer, module, words = tiny.make_trainer(callbacks=[RelationalAlignment()]), tiny.TinyT5(), tiny.TinyWords()
    (got,) = trainer.validate(module, datamodule=words, verbose=False)
    base, now = (entry_representations(trainer, module, base=b) for b in (True, False))
    original, modulated = own_figures(base, words), own_figures(now, words)
    static = own_figures(encode_population(trainer, module, lambda i, m: module.static_embed(i), ""), words)
    random = own_figures(encode_population(trainer, module, module.random_encoder(), ""), words)
    for key in ("pearson", "spearman", "gradient", "held_out/pearson", "train/spearman", "mixed/gradient"):
        assert got[f"relational/{key}"] == pytest.approx(modulated[key], abs=1e-6)
        assert got[f"relational/original/{key}"] == pytest.approx(original[key], abs=1e-6)
        assert got[f"relational/static/{key}"] == pytest.approx(static[key], abs=1e-6)
        assert got[f"relational/random/{key}"] == pytest.approx(random[key], abs=1e-6)
        lift = modulated[key] - original[key]
        assert got[f"relational/{key}_lift"] == pytest.approx(lift, abs=1e-6)
        assert got[f"relational/{key}_lift_percent"] == pytest.approx(100 * lift / abs(original[key]), rel=1e-3)
    assert got["relational/preservation"] == pytest.approx(metrics.preservation(base, now).item(), abs=1e-6)
    assert got["relational/pearson_lift"] != 0
    assert "relational/band/0.25_0.50" in got
    assert "relational/band/0.90_1.00" not in got, "distinct synsets are never that similar"


def test_fit_writes_baselines_before_the_first_step_and_figures_at_each_validation(tiny: ModuleType) -> None:
    look = RelationalAlignment()
    trainer = tiny.make_trainer(callbacks=[look], num_sanity_val_steps=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    seen = trainer.logger.seen
    assert [step for step, _ in seen["relational/pearson"]] == [0, 9, 19]
    assert [step for step, _ in seen["relational/original/pearson"]] == [0]
    assert seen["relational/pearson"][0][1] != seen["relational/pearson"][-1][1]
    assert "relational/pearson_lift" in trainer.callback_metrics
    summary = look.summary()
    assert set(summary["baseline"]) == {"original", "static", "random"}
    assert [check["step"] for check in summary["history"]] == [0, 10, 20]
    assert summary["last"]["pearson"] == pytest.approx(seen["relational/pearson"][-1][1], abs=1e-6)
    json.dumps(summary, allow_nan=False)


def test_a_second_fit_after_a_validation_works(tiny: ModuleType) -> None:
    # A validation runs in inference mode; what it leaves behind must not break the next training.
    look, module, words = RelationalAlignment(pairs=200, baselines=False), tiny.TinyT5(), tiny.TinyWords()
    for _ in range(2):
        tiny.make_trainer(callbacks=[look], max_epochs=1).fit(module, datamodule=words)
        tiny.make_trainer(callbacks=[look]).validate(module, datamodule=words, verbose=False)
    assert set(look.summary()["baseline"]) == {"original"}


def test_a_bare_encoder_has_figures_and_no_lift(tiny: ModuleType) -> None:
    trainer = tiny.make_trainer(callbacks=[RelationalAlignment()], max_epochs=1)
    trainer.fit(tiny.TinyT5(modulated=False, lr=1e-3), datamodule=tiny.TinyWords())
    assert len(trainer.logger.seen["relational/pearson"]) == 2
    assert not any("lift" in key or "preservation" in key or "original" in key for key in trainer.logger.seen)


def test_its_state_goes_through_a_checkpoint(tiny: ModuleType, tmp_path: Path) -> None:
    look, again = RelationalAlignment(), RelationalAlignment()
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again.load_state_dict(torch.load(tmp_path / "a.ckpt", weights_only=True)["callbacks"]["RelationalAlignment"])
    assert again.summary() == look.summary()


def test_lifts_are_differences_and_percents_of_the_size() -> None:
    got = lifts({"pearson": 0.1, "held_out/spearman": 0.3}, {"pearson": -0.2, "held_out/spearman": 0.0})
    assert got == pytest.approx({"pearson_lift": 0.3, "pearson_lift_percent": 150, "held_out/spearman_lift": 0.3})


@pytest.mark.parametrize("pairs", [0, -5, True, "some"])
def test_senseless_numbers_of_pairs_are_errors(pairs: object) -> None:
    with pytest.raises(ValueError, match=f"pairs is {pairs!r}"):
        RelationalAlignment(pairs=pairs)
