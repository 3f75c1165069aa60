"""What tests of short fits share: batches of one set of tokens, a quiet trainer, a module with its backbone."""

from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modulators import LerpModulator, ModulatedT5

SMALL_LERP = partial(LerpModulator, n_geometric_dims=4)


def loader(tokens: dict[str, Tensor], batches: int = 3) -> Any:
    made = [{key: value.roll(i, 0) for key, value in tokens.items()} for i in range(batches)]
    return DataLoader(made, batch_size=None)


def trainer(folder: Path, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": folder,
            **arguments,
        },
        callbacks=list(callbacks),
    )


def built(module: ModulatedT5, loud: bool = False) -> ModulatedT5:
    """With its backbone; `loud`: with a modulator that says something."""
    module.configure_model()
    if loud:
        with torch.no_grad():
            module.modulator.alpha_logits.add_(4)
    return module
