"""Folders of models: loaded as saved, and what is wrong with one in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wavegpt
from tests.wavegpt.arms import ARMS, V, model_of, small, some_ids
from wavegpt import AnnealConfig, EmbeddingConfig, WaveConfig


@pytest.mark.parametrize("name", ["wave", "baseline", "source/full_physics", "learned", "tied", "factorised"])
def test_a_loaded_model_has_the_same_logits(tmp_path: Path, name: str) -> None:
    model = model_of(ARMS[name], torch.float32)
    loaded = wavegpt.load(wavegpt.save(model, tmp_path / "model"))
    assert not loaded.training
    assert torch.equal(loaded(some_ids()), model(some_ids()))


def test_masses_are_loaded_not_drawn_again(tmp_path: Path) -> None:
    config = small(WaveConfig(embedding=EmbeddingConfig(mass="shuffled")))
    model = model_of(config)
    torch.manual_seed(9)
    state = torch.random.get_rng_state()
    loaded = wavegpt.load(wavegpt.save(model, tmp_path))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(loaded.embedding.ranks, model.embedding.ranks)
    assert torch.equal(loaded(some_ids()), model(some_ids()))


@pytest.mark.parametrize(("end", "kept"), [(0.0, False), (0.5, True)])
def test_the_table_of_a_finished_annealing_is_left_out(tmp_path: Path, end: float, kept: bool) -> None:
    model = model_of(small(WaveConfig(embedding=EmbeddingConfig(anneal=AnnealConfig(steps=5, end=end)))))
    loaded = wavegpt.load(wavegpt.save(model, tmp_path))
    assert hasattr(loaded.embedding, "table") is kept
    assert torch.equal(loaded(some_ids()), model(some_ids()))


def spoil(folder: Path, how: str) -> None:
    weights, about = folder / "model.safetensors", folder / "wave_config.json"
    config = json.loads(about.read_text())
    if how == "no folder":
        weights.unlink()
    elif how == "half":
        weights.write_bytes(weights.read_bytes()[:100])
    elif how == "no json":
        about.write_text("{")
    elif how == "format":
        about.write_text(json.dumps(config | {"format": 99}))
    elif how == "key":
        about.write_text(json.dumps(config | {"d_modle": 3}))
    else:
        about.write_text(json.dumps(config | {"layers": 3}))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no folder", "cannot be read"), ("half", "cannot be read"), ("no json", "no JSON"), ("format", "of format 1"),
        ("key", "d_modle"), ("layers", "does not fit"),
    ],
)  # fmt: skip
def test_a_spoilt_folder_is_refused_in_one_line(tmp_path: Path, how: str, said: str) -> None:
    wavegpt.save(model_of(replace(ARMS["baseline"], vocab_size=V)), tmp_path)
    spoil(tmp_path, how)
    with pytest.raises(ValueError, match=said) as error:
        wavegpt.load(tmp_path)
    assert "\n" not in str(error.value)
