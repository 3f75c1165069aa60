"""Work that several processes do together, for tests that compare what they find with what one process finds.

`together` starts the processes of a world once, and each does a list of jobs; a job done without `together` is done by
one process that knows nothing of others.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import multiprocessing

from cli.running.parser import quiet

Job = Callable[[], Any]


def together(world: int, jobs: list[Job], folder: Path) -> list[list[Any]]:
    """What each process of a world found: rank → a result a job."""
    folder.mkdir()
    multiprocessing.spawn(_join, (world, jobs, str(folder)), nprocs=world)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(world)]


def _join(rank: int, world: int, jobs: list[Job], folder: str) -> None:
    warnings.simplefilter("error")
    # A rank without a share of the population; torchmetrics says so on the first rank of each machine alone.
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric EntryRepresentations")
    warnings.filterwarnings("ignore", ".*use of fork.. may lead to deadlocks", DeprecationWarning)
    quiet()
    torch.set_num_threads(1)
    # A process that was spawned would spawn a DataLoader's workers too, and each would import torch anew.
    multiprocessing.set_start_method("fork", force=True)
    # torchrun's environment variables, except a port: the processes meet by a file.
    os.environ |= {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    os.environ |= {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    torch.save([job() for job in jobs], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def world_size() -> int:
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def trainer_in(folder: str, **settings: Any) -> pl.Trainer:
    together = {"strategy": "ddp", "devices": world_size(), "use_distributed_sampler": False}
    if not torch.distributed.is_initialized():
        together = {"devices": 1}
        settings.pop("strategy", None)
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **(together | settings),
    )


class SaveAt(pl.Callback):
    """Saves once, after a step."""

    def __init__(self, step: int, file: str) -> None:
        self.step, self.file = step, file

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.file)
