"""RelationalAlignment in real runs: figures equal the metric's own, lifts their definition, baselines come first."""

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from callbacks import RelationalAlignment
from callbacks.measures.relational_alignment import BOOTSTRAP_FILE
from callbacks.measures.representations import encode_population, entry_representations
from modulant import metrics


def own_figures(points: torch.Tensor, words) -> dict[str, float]:
    metric = metrics.RelationalAlignment(words.path_distances(), words.population.part)
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


def test_chains_and_categories_stand_beside_them(tiny: ModuleType) -> None:
    trainer, module, words = tiny.make_trainer(callbacks=[RelationalAlignment()]), tiny.TinyT5(), tiny.TinyWords()
    (got,) = trainer.validate(module, datamodule=words, verbose=False)
    unit = torch.nn.functional.normalize(entry_representations(trainer, module, base=False), dim=-1)
    cosines = (unit @ unit.mT).double()
    for depth in (1, 3, 8):
        expected = cosines.diagonal(depth).mean().item()
        assert got[f"relational/chain/depth_{depth}"] == pytest.approx(expected, abs=1e-6)
    same = torch.arange(40)[:, None] % 3 == torch.arange(40) % 3
    within = cosines[same.triu(1)].mean().item()
    assert got["relational/category/within"] == pytest.approx(within, abs=1e-6)
    overall = cosines[torch.ones(40, 40).triu(1).bool()].mean().item()
    assert got["relational/category/gap"] == pytest.approx(within - overall, abs=1e-6)


def test_the_lift_has_an_interval_at_the_end_of_a_fit(tiny: ModuleType) -> None:
    look = RelationalAlignment(bootstrap=200)
    trainer, module, words = tiny.make_trainer(callbacks=[look]), tiny.TinyT5(), tiny.TinyWords()
    trainer.fit(module, datamodule=words)
    with np.load(Path(trainer.default_root_dir) / BOOTSTRAP_FILE) as file:
        original, modulated = file["original"], file["modulated"]
    assert original.shape == modulated.shape == (200, 4)
    clouds = [entry_representations(trainer, module, base=base) for base in (True, False)]
    again = metrics.bootstrap_pearson(clouds, words.path_distances(), words.population.part, 200).numpy()
    np.testing.assert_allclose(np.stack([original, modulated]), again, atol=1e-6)
    low, high = np.percentile(modulated[:, 3] - original[:, 3], (2.5, 97.5))
    assert look.summary()["interval"]["held_out"] == pytest.approx([low, high])
    seen = trainer.logger.seen
    assert seen["relational/held_out/pearson_lift_low"][-1][1] == pytest.approx(low)
    assert seen["relational/pearson_lift_low"][-1][1] <= seen["relational/pearson_lift"][-1][1]
    assert seen["relational/pearson_lift"][-1][1] <= seen["relational/pearson_lift_high"][-1][1]
    assert look.summary()["seconds"] > 0


def test_parts_and_parts_of_speech_are_told_apart(tiny: ModuleType) -> None:
    words = tiny.TinyWords()
    words.population = tiny.Population((np.arange(tiny.WORDS) % 3).astype(np.int8))
    look = RelationalAlignment(baselines=False, bootstrap=200)
    trainer, module = tiny.make_trainer(callbacks=[look]), tiny.TinyT5()
    trainer.fit(module, datamodule=words)
    part, pos = words.population.part, words.parts_of_speech()
    metric = metrics.RelationalAlignment(words.path_distances(), part, pos=pos)
    metric.update(entry_representations(trainer, module, base=False))
    seen, expected = trainer.logger.seen, metric.compute()
    for key in ("validation/pearson", "nouns/pearson", "held_out/nouns/pearson", "validation/nouns/spearman"):
        assert seen[f"relational/{key}"][-1][1] == pytest.approx(expected[key].item(), abs=1e-6)
        assert f"relational/original/{key}" in seen
        assert f"relational/{key}_lift" in seen
    assert "relational/held_out/verbs/pearson" in seen
    with np.load(Path(trainer.default_root_dir) / BOOTSTRAP_FILE) as file:
        assert file["original"].shape == (200, 4)
        names = file["further"].tolist()
        lifts = file["further_modulated"] - file["further_original"]
    assert ("all", *metrics.POPULATIONS, *names) == metrics.bootstrap_columns(part, pos)
    low, high = np.percentile(lifts[:, names.index("nouns")], (2.5, 97.5))
    assert look.summary()["interval"]["nouns"] == pytest.approx([low, high])
    assert seen["relational/nouns/pearson_lift_low"][-1][1] == pytest.approx(low)


def test_steps_after_the_last_validation_are_measured_too(tiny: ModuleType) -> None:
    look = RelationalAlignment(baselines=False, bootstrap=40)
    tiny.make_trainer(callbacks=[look], max_steps=13).fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    assert [check["step"] for check in look.summary()["history"]] == [0, 10, 13]


def test_without_a_bootstrap_there_is_no_interval(tiny: ModuleType) -> None:
    look = RelationalAlignment(baselines=False, bootstrap=0)
    trainer = tiny.make_trainer(callbacks=[look], max_epochs=1)
    trainer.fit(tiny.TinyT5(), datamodule=tiny.TinyWords())
    assert look.summary()["interval"] == {}
    assert not (Path(trainer.default_root_dir) / BOOTSTRAP_FILE).exists()
    with pytest.raises(ValueError, match="bootstrap is 39; it must be 0 or an integer of at least 40"):
        RelationalAlignment(bootstrap=39)


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
    got = metrics.lifts({"pearson": 0.1, "held_out/spearman": 0.3}, {"pearson": -0.2, "held_out/spearman": 0.0})
    assert got == pytest.approx({"pearson_lift": 0.3, "pearson_lift_percent": 150, "held_out/spearman_lift": 0.3})


@pytest.mark.parametrize("pairs", [0, -5, True, "some"])
def test_senseless_numbers_of_pairs_are_errors(pairs: object) -> None:
    with pytest.raises(ValueError, match=f"pairs is {pairs!r}"):
        RelationalAlignment(pairs=pairs)
