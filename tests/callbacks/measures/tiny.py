"""A tiny T5 with a real modulator, a population of words, and a logger that remembers. As a script: two ranks of it.

`python tiny.py FOLDER RANKS` trains and validates, and each rank writes what its callbacks saw to FOLDER/rank_N.json.
"""

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

from callbacks import AlphaConvergence, ModulatorHealth, PentachoronHealth, RelationalAlignment
from modulators import FieldModulator, ResidualStream, attach

WORDS, WIDTH, LAYERS = 40, 32, 2


class TinyT5(L.LightningModule):
    """Interface of ModulatedT5; with `modulated=False`, of a bare encoder in pretraining."""

    def __init__(self, modulated: bool = True, layers: list[int] | None = None, lr: float = 0.05) -> None:
        super().__init__()
        self.config = T5Config(
            vocab_size=60,
            d_model=WIDTH,
            d_kv=8,
            d_ff=48,
            num_layers=LAYERS,
            num_decoder_layers=1,
            num_heads=4,
            decoder_start_token_id=0,
        )
        torch.manual_seed(0)
        self.backbone = T5ForConditionalGeneration(self.config).requires_grad_(not modulated)
        self.stream = ResidualStream(WIDTH, LAYERS, 60)
        self.layers = list(range(LAYERS)) if layers is None else layers
        self.modulator = FieldModulator(self.stream, initial_alpha=0.2, deform_scale=1.0) if modulated else None
        self.handle = attach(self.backbone, self.modulator, self.layers) if self.modulator is not None else None
        self.lr = lr

    @property
    def active_dims(self) -> Tensor:
        return torch.arange(WIDTH) if self.modulator is None else self.modulator.active_dims

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.backbone.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    def static_embed(self, input_ids: Tensor) -> Tensor:
        return self.backbone.shared(input_ids)

    def random_encoder(self) -> Any:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            encoder = T5EncoderModel(self.config).eval()
        return lambda ids, mask: encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.backbone(input_ids=batch, labels=batch[:, :2].contiguous()).loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([p for p in self.parameters() if p.requires_grad], lr=self.lr)


@dataclass
class Population:
    part: np.ndarray

    def __len__(self) -> int:
        return len(self.part)


class TinyWords(L.LightningDataModule):
    """40 words of 3 to 9 tokens in 7 batches, and a symmetric table of distances between them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.lengths = torch.randint(3, 10, (WORDS,), generator=generator)
        self.ids = torch.randint(2, 60, (WORDS, 9), generator=generator)
        self.population = Population((np.arange(WORDS) % 4 == 0).astype(np.int8))

    def population_batches(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        batches = []
        for rows in self.lengths.argsort(stable=True).split(6):
            longest = int(self.lengths[rows].max())
            mask = (torch.arange(longest) < self.lengths[rows, None]).long()
            batches.append((rows, self.ids[rows, :longest] * mask, mask))
        return batches

    def path_distances(self) -> np.ndarray:
        d = np.triu(np.random.default_rng(2).integers(1, 16, (WORDS, WORDS)), 1)
        return (d + d.T).astype(np.uint8)

    def hypernym_chains(self, depth: int) -> np.ndarray:
        """Each word's hypernym is the one before it."""
        return np.maximum(np.arange(WORDS)[:, None] - np.arange(1, depth + 1), -1)

    def parts_of_speech(self) -> np.ndarray:
        return np.array(list("nnnva"))[np.arange(WORDS) % 5]

    def categories(self) -> tuple[np.ndarray, list[str]]:
        return np.arange(WORDS) % 3, ["a", "b", "c"]

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.ids, batch_size=4)  # type: ignore[arg-type]  # 10 batches

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(self.ids[:8], batch_size=4)  # type: ignore[arg-type]


class Memory(Logger):
    """Remembers every figure with its step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[tuple[int, float]]] = {}

    @property
    def name(self) -> str:
        return "memory"

    @property
    def version(self) -> str:
        return "0"

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        for key, value in metrics.items():
            self.seen.setdefault(key, []).append((int(step or 0), float(value)))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass


def quiet() -> None:
    """Two warnings of Lightning 2.6 in any run on torch 2.13: advice about workers, and its own old pytree."""
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)


def make_trainer(**overrides: Any) -> L.Trainer:
    settings: dict[str, Any] = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": Memory(),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "log_every_n_steps": 10,
    }
    return L.Trainer(**(settings | overrides))


def _main(folder: Path, ranks: int) -> None:
    warnings.simplefilter("error")
    quiet()
    torch.set_num_threads(1)
    seen: dict[str, Any] = {}
    for stage in ("validate", "fit"):
        looks = [AlphaConvergence(5), RelationalAlignment(), PentachoronHealth(tolerance=1e-6, patience=2, n=200)]
        strategy: dict[str, Any] = {"devices": ranks, "strategy": "ddp", "use_distributed_sampler": False}
        spread = strategy if ranks > 1 else {}
        trainer = make_trainer(callbacks=[*looks, ModulatorHealth(5)], default_root_dir=folder, max_epochs=5, **spread)
        module, words = TinyT5(), TinyWords()
        getattr(trainer, stage)(module, datamodule=words)
        seen[stage] = [look.summary() for look in looks]
        seen[f"{stage}_steps"] = trainer.global_step
        seen[f"{stage}_health"] = {key: points for key, points in trainer.logger.seen.items() if key[:6] == "field/"}
    (folder / f"rank_{trainer.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
