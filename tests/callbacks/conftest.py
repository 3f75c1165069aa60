"""A real LightningModule, DataModule and Trainer, small enough for a test of a callback."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class TinyModulator(nn.Module):
    """What the callbacks read of a modulator: alphas by layer and expert, and the experts' names."""

    def __init__(self, layers: int = 3, experts: tuple[str, ...] = ("k1", "k2")) -> None:
        super().__init__()
        self.expert_names = experts
        self.alpha_logits = nn.Parameter(torch.full((layers, len(experts)), -4.0))

    @property
    def alphas(self) -> Tensor:
        return torch.sigmoid(self.alpha_logits)


class TinyHandle:
    """Switches a module's modulation off."""

    def __init__(self) -> None:
        self.on = True

    @contextmanager
    def disabled(self) -> Iterator[None]:
        self.on = False
        yield
        self.on = True


class TinyModule(pl.LightningModule):
    """A frozen linear backbone under a modulator whose alphas scale it; logs under the project's keys.

    Its "encoder" looks embeddings up, and bends them by the mean alpha.
    """

    def __init__(self, modulator: TinyModulator | None = None, lr: float = 0.05) -> None:
        super().__init__()
        self.backbone = nn.Linear(4, 4).requires_grad_(False)
        self.modulator = TinyModulator() if modulator is None else modulator
        self.layers = list(range(len(self.modulator.alphas)))
        self.lr = lr
        self.embedding = nn.Embedding(50, 8).requires_grad_(False)
        self.handle = TinyHandle()
        self.stream = SimpleNamespace(d_model=8, n_layers=len(self.layers), vocab_size=50)
        self.active_dims = torch.arange(8)

    def static_embed(self, input_ids: Tensor) -> Tensor:
        return self.embedding(input_ids)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = self.embedding(input_ids)
        bent = hidden.roll(1, -1).tanh() * self.modulator.alphas.mean() * 10
        return hidden + bent if self.handle.on else hidden

    def random_encoder(self) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda input_ids, attention_mask: self.embedding(input_ids).flip(-1).sin()

    def describe(self) -> dict[str, Any]:
        return {"backbone": "tiny", "lr": self.lr}

    def _loss(self, batch: list[Tensor]) -> Tensor:
        x = batch[0]
        return (self.backbone(x) * self.modulator.alphas.mean() - x).square().mean()

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = self._loss(batch)
        self.log("train/loss", loss)
        self.log("alpha/mean", self.modulator.alphas.detach().mean())
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self._loss(batch), batch_size=len(batch[0]))

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", self._loss(batch), batch_size=len(batch[0]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.lr)


class TinyData(pl.LightningDataModule):
    """20 batches of 2 for training, 5 for validation; a population of 40 synsets on a line."""

    @property
    def population(self) -> Any:
        class Population:
            part = (np.arange(40) % 4 == 0).astype(np.int8)

            def __len__(self) -> int:
                return 40

        return Population()

    def population_batches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        ids = torch.arange(40 * 3).view(40, 3) % 50
        return [(torch.arange(i, i + 8), ids[i : i + 8], torch.ones(8, 3, dtype=torch.long)) for i in range(0, 40, 8)]

    def path_distances(self) -> np.ndarray[Any, np.dtype[np.uint8]]:
        places = np.arange(40)
        return np.minimum(np.abs(places[:, None] - places[None, :]), 21).astype(np.uint8)

    def hypernym_chains(self, depth: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.maximum(np.arange(40)[:, None] - np.arange(1, depth + 1), -1)

    def parts_of_speech(self) -> np.ndarray[Any, np.dtype[np.str_]]:
        return np.array(list("nnnva"))[np.arange(40) % 5]

    def categories(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
        return np.arange(40) % 3, ["a", "b", "c"]

    def _loader(self, n: int) -> DataLoader[Any]:
        points = torch.arange(n * 4, dtype=torch.float32).view(n, 4).sin()
        return DataLoader(TensorDataset(points), batch_size=2)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(40)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(10)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(10)

    def describe(self) -> dict[str, Any]:
        return {"corpus": "sines", "entries": 40, "seed": 42}


class Explode(pl.Callback):
    """Raises after a given number of optimiser steps."""

    def __init__(self, step: int, error: BaseException) -> None:
        self.step, self.error = step, error

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.global_step == self.step:
            raise self.error


@pytest.fixture
def tiny_module() -> TinyModule:
    return TinyModule()


@pytest.fixture
def tiny_data() -> TinyData:
    return TinyData()


@pytest.fixture
def make_module() -> type[TinyModule]:
    return TinyModule


@pytest.fixture
def make_modulator() -> type[TinyModulator]:
    return TinyModulator


@pytest.fixture
def explode() -> type[Explode]:
    return Explode


@pytest.fixture
def make_trainer(tmp_path: Path) -> Callable[..., pl.Trainer]:
    """A CPU trainer of 2 epochs whose run folder is tmp_path/run, quiet and without warnings."""

    def make(**overrides: Any) -> pl.Trainer:
        settings: dict[str, Any] = {
            "default_root_dir": str(tmp_path / "run"),
            "accelerator": "cpu",
            "devices": 1,
            "max_epochs": 2,
            "logger": False,
            "callbacks": [],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "num_sanity_val_steps": 0,
            "log_every_n_steps": 5,
        }
        return pl.Trainer(**(settings | overrides))

    return make


@pytest.fixture(autouse=True)
def _lightning_is_not_under_test() -> None:
    """Two warnings that Lightning 2.6 raises in any run on torch 2.13: advice about workers, and its own old pytree."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
