"""Strategy for a backbone that is sharded over ranks: `ShardedStrategy`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, distributed, nn


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with all ranks along its data-parallel axis, for a frozen backbone.

    The module shards its backbone in `configure_model` (`modulant.backbones.sharding`); trained parameters are whole on
    every rank. So their gradients are averaged as in DistributedDataParallel, in one collective after the backward
    pass, and a checkpoint has the format of any other run and can be resumed under any strategy. Lightning's own
    handling of sharded states is not used.

    Args:
        process_group_backend: nccl, gloo …; by default that of the device.
        timeout: of a collective.
    """

    def __init__(self, process_group_backend: str | None = None, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(1, 1, False, process_group_backend, timeout)
        self._accumulating = False

    def setup_environment(self) -> None:
        # num_processes is known only now
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """Set up the strategy, and broadcast rank 0's trained parameters.

        Raises:
            ValueError: inference mode is on: it would gather weights as inference tensors, which autograd rejects.
        """
        evaluations: Any = (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop)
        if any(loop.inference_mode for loop in evaluations):
            raise ValueError("trainer.inference_mode must be false if the backbone is sharded (see fsdp.yaml)")
        super().setup(trainer)
        for tensor in self._trainable():  # each rank may have initialised them differently
            distributed.broadcast(tensor.detach(), 0)

    @contextmanager
    def block_backward_sync(self) -> Iterator[None]:
        self._accumulating = True
        try:
            yield
        finally:
            self._accumulating = False

    def post_backward(self, closure_loss: Tensor) -> None:
        if self._accumulating:
            return
        trainable = self._trainable()
        for parameter in trainable:  # one that this rank's share of the batch did not reach
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in trainable if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat.div_(self.world_size))
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _trainable(self) -> list[nn.Parameter]:
        assert self.lightning_module is not None
        return [parameter for parameter in self.lightning_module.parameters() if parameter.requires_grad]

    # What is saved is whole on every rank, so the unsharded implementations apply.
    restore_checkpoint_after_setup = Strategy.restore_checkpoint_after_setup
    lightning_restore_optimizer = Strategy.lightning_restore_optimizer
    lightning_module_state_dict = Strategy.lightning_module_state_dict
    load_model_state_dict = Strategy.load_model_state_dict
    optimizer_state = Strategy.optimizer_state
    load_optimizer_state_dict = Strategy.load_optimizer_state_dict
    save_checkpoint = Strategy.save_checkpoint
    load_checkpoint = Strategy.load_checkpoint
