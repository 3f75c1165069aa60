"""What is measured before the first step is kept by what it follows from; a second run reads it and learns the same."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch

from callbacks import FirstValidation, PentachoronHealth, RelationalAlignment
from callbacks.measures import relational_alignment, representations
from cli.running.parser import quiet
from datamodules import WordNetDataModule
from modulant.storage import cache_folder, content_key
from modulators import FieldModulator, ModulatedT5, RelationalObjective
from tests.runs import small_wordnet, tiny_backbone

SETTINGS: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def parts(folder: Path, seed: int = 0) -> tuple[ModulatedT5, WordNetDataModule]:
    backbone, wordnet = str(folder / "t5"), str(folder / "wordnet")
    torch.manual_seed(seed)
    objective = RelationalObjective(verbs=0.0)
    module = ModulatedT5(lambda stream: FieldModulator(stream, gate="centred"), backbone, objective=objective)
    return module, WordNetDataModule(backbone, batch_size=16, near_pairs=0.25, nltk_data=wordnet)


def fit(folder: Path, seed: int = 0) -> dict[str, Any]:
    quiet()
    module, data = parts(folder, seed)
    first, look, cloud, losses = FirstValidation(), RelationalAlignment(bootstrap=40), PentachoronHealth(), Losses()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=3,
        val_check_interval=2,
        num_sanity_val_steps=0,
        logger=False,
        default_root_dir=folder,
        callbacks=[first, look, cloud, losses],
        **SETTINGS,
    )
    trainer.fit(module, datamodule=data)
    found = {"first": first.figures, "relational": look.summary(), "cloud": cloud.summary(), "losses": losses.seen}
    found["relational"].pop("seconds")
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MODULANT_CACHE", str(tmp_path / "cache"))
    tiny_backbone(tmp_path / "t5")
    small_wordnet(tmp_path / "wordnet")
    return tmp_path


def test_a_second_run_encodes_nothing_before_its_first_step_and_learns_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[tuple[str, int]] = []
    encode = representations.encode_population

    def watched(trainer: Any, module: Any, by: Any, label: str) -> torch.Tensor:
        encoded.append((label, trainer.global_step))
        return encode(trainer, module, by, label)

    for module in (representations, relational_alignment):
        monkeypatch.setattr(module, "encode_population", watched)
    cold = fit(folder)
    assert [label for label, step in encoded if step == 0] == [
        "base",
        "static embeddings",
        "a random encoder",
        "entries",
    ]
    encoded.clear()
    assert fit(folder) == cold
    assert {step for _, step in encoded} == {2, 3}
    for file in cache_folder().glob("[frb]*-*.npz"):
        file.write_bytes(file.read_bytes()[:-100])
    assert fit(folder) == cold, "damaged files are computed again"
    encoded.clear()
    assert fit(folder, seed=1)["relational"]["baseline"] == cold["relational"]["baseline"]
    assert ("base", 0) not in encoded
    assert ("entries", 0) in encoded, "another modulator is another one before its first step too"


def test_a_weight_the_tokenizer_and_wordnet_are_in_the_key(folder: Path) -> None:
    def key(learned: bool = False) -> str:
        module, data = parts(folder)
        module.configure_model()
        data.setup("fit")
        return content_key(module.content(learned), data.content(), data.population_batches())

    seen = [key(), key(learned=True)]
    assert key() == seen[0]
    module, data = parts(folder)
    module.configure_model()
    data.setup("fit")
    _, used_ids, _ = data.population_batches()[0]
    weight = module.model.encoder.block[1].layer[0].SelfAttention.q.weight
    before = content_key(module.content())
    with torch.no_grad():
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
    assert content_key(module.content()) != before
    file = folder / "t5" / "tokenizer.json"
    described = json.loads(file.read_text())
    vocabulary = described["model"]["vocab"]
    used = int(used_ids.view(-1)[-2])
    vocabulary[used], vocabulary[used + 1] = vocabulary[used + 1], vocabulary[used]
    file.write_text(json.dumps(described))
    seen.append(key())
    small_wordnet(folder / "wordnet", 80)
    seen.append(key())
    assert len(set(seen)) == 4


def test_whose_code_no_key_has_seen_is_measured_anew(folder: Path) -> None:
    class Mine(ModulatedT5):
        pass

    module = Mine(FieldModulator, str(folder / "t5"))
    module.configure_model()
    assert module.content() is None
