"""Base class of every DataModule: whole batches of an epoch, which processes share, and the position in them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.utils.data import Dataset

from datamodules.position import BATCH_SIZE, Accumulated, EpochSampler, Position, accumulated


class EpochDataModule(pl.LightningDataModule, ABC):
    """Owns the position in the training data: ``state_dict()`` holds the epoch and its number of finished batches.

    Args:
        batch_size: examples a process.
        seed: of the split, and of the order of each epoch.
    """

    def __init__(self, batch_size: int, seed: int) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        self.order_seed = seed  # of the order of each epoch
        self._position = Position()

    @property
    def _rank_and_world_size(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @property
    def _to_cuda(self) -> bool:
        """Whether batches go to a GPU: copies from pinned memory are asynchronous."""
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    @property
    def _global_batch_size(self) -> int:
        """Examples in a batch over all ranks, which share each batch.

        One process with this batch size computes the same gradients.
        """
        return self.batch_size * self._rank_and_world_size[1]

    @abstractmethod
    def _epoch_batches(self, epoch: int) -> Sequence[Any]:
        """Return the batches of an epoch over all ranks, in order: for each what the loader makes a batch from."""

    @abstractmethod
    def _batches_per_epoch(self) -> int:
        """Length of `_epoch_batches`."""

    @abstractmethod
    def _target_tokens(self, batch: Any) -> int:
        """Number of target tokens in one of `_epoch_batches`."""

    def _plan(self) -> dict[str, Any]:
        """Settings that determine the batches of an epoch, besides its number."""
        return {BATCH_SIZE: self._global_batch_size, "data.seed": self.seed, "data.order_seed": self.order_seed}

    def _sampler(self) -> EpochSampler:
        """Sampler of the training epochs, starting at the loaded position.

        Raises:
            ValueError: the run stopped in mid-epoch with another plan, or Lightning would shard the batches again.
        """
        trainer = self.trainer
        if trainer is None:
            return EpochSampler(self._epoch_batches, self._batches_per_epoch(), lambda: (0, 0))
        total = self._batches_per_epoch()

        def batches(epoch: int) -> Sequence[Any]:
            # Those of overfit_batches are the same each epoch.
            some = self._epoch_batches(0 if getattr(trainer, "overfit_batches", 0) else epoch)
            if (n := _accumulated_in(trainer, epoch)) == 1:
                return some
            limit = getattr(trainer, "limit_train_batches", 1.0)
            ends = int(total * limit) if isinstance(limit, float) else min(total, limit)
            return accumulated(some, self._target_tokens, n, ends)

        if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
            raise ValueError("trainer.use_distributed_sampler must be false: the DataModule shards the batches itself")
        if trainer.ckpt_path is None:  # a new run; this DataModule may have been used before
            self._position.reset()
        self._position.check(self._plan())
        return EpochSampler(batches, total, lambda: self._position.current(trainer, total))

    def _evaluated(self, batches: list[Any], limit: str) -> list[list[Any]]:
        """Batches of an evaluation in groups of one per rank, sorted by length; a part is shuffled first.

        A part of the sorted order would hold the shortest texts alone.

        Args:
            limit: the trainer's argument that asks for a part, such as limit_val_batches.
        """
        world = self._rank_and_world_size[1]
        groups = [batches[i : i + world] for i in range(0, len(batches), world)]
        part = getattr(self.trainer, limit, 1.0)
        if part == 0 or (isinstance(part, float) and part == 1.0):
            return groups
        return [groups[i] for i in np.random.default_rng(self.seed).permutation(len(groups))]

    def state_dict(self) -> dict[str, Any]:
        trainer = self.trainer
        if trainer is None:  # not used in a training yet
            return {}
        return self._position.state_dict(trainer, self._batches_per_epoch(), self._plan())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the position of a checkpoint's run."""
        self._position.load_state_dict(state_dict)


class Cooked(Dataset[dict[str, Any]]):
    """Batches by their recipes, each of which takes the place of a batch's indices: `as_it_is` collates them."""

    def __init__(self, cook: Callable[[Any], dict[str, Any]]) -> None:
        self._cook = cook

    def __getitem__(self, recipe: Any) -> dict[str, Any]:
        return self._cook(recipe)

    def __getitems__(self, recipe: Any) -> dict[str, Any]:
        if isinstance(recipe, Accumulated):
            return {**self._cook(recipe.batch), "factor": recipe.factor}
        return self._cook(recipe)


def as_it_is(batch: Any) -> Any:
    """The batch, for a loader whose dataset has collated it."""
    return batch


def _accumulated_in(trainer: pl.Trainer, epoch: int) -> int:
    """Batches that make a step of an epoch."""
    for callback in getattr(trainer, "callbacks", ()):
        if isinstance(callback, GradientAccumulationScheduler):
            return int(callback.get_accumulate_grad_batches(epoch))
    return int(getattr(trainer, "accumulate_grad_batches", 1))
