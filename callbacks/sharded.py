"""How a run is spread over processes whose backbone is dealt out: `ShardedStrategy`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import ModelParallelStrategy, Strategy
from torch import Tensor, distributed, nn


class ShardedStrategy(ModelParallelStrategy):
    """Lightning's ModelParallelStrategy with all processes along its one data-parallel axis, for a frozen backbone.

    The module shards its backbone in `configure_model` (`modulant.backbones.sharding`); what learns is whole on every
    process. So the gradients of what learns are averaged as DistributedDataParallel would, in one collective after the
    backward pass, and a checkpoint is the same file as of any other run, and goes on under any strategy: Lightning's
    own way, of states that are put together from shards or saved in a folder, is left out.

    Args:
        process_group_backend: nccl, gloo …; by default what the device takes.
        timeout: of a collective.
    """

    def __init__(self, process_group_backend: str | None = None, timeout: timedelta = timedelta(minutes=30)) -> None:
        super().__init__(1, 1, False, process_group_backend, timeout)
        self._accumulating = False

    def setup_environment(self) -> None:
        # known when the processes have been started
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        """
        Raises:
            ValueError: an evaluation would gather weights as inference tensors, which a backward pass refuses.
        """
        evaluations: Any = (trainer.fit_loop.epoch_loop.val_loop, trainer.validate_loop, trainer.test_loop)
        if any(loop.inference_mode for loop in evaluations):
            raise ValueError("trainer.inference_mode must be false where the backbone is dealt out (see fsdp.yaml)")
        super().setup(trainer)
        for tensor in self._learning():  # whatever each process drew, the first one's counts
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
        learning = self._learning()
        for parameter in learning:  # one that this process's part of the batch did not reach
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in learning if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(together.div_(self.world_size))
        for gradient, mean in zip(gradients, together.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def _learning(self) -> list[nn.Parameter]:
        assert self.lightning_module is not None
        return [parameter for parameter in self.lightning_module.parameters() if parameter.requires_grad]

    # What is saved is whole on every process: as under any strategy that deals nothing out.
    restore_checkpoint_after_setup = Strategy.restore_checkpoint_after_setup
    lightning_restore_optimizer = Strategy.lightning_restore_optimizer
    lightning_module_state_dict = Strategy.lightning_module_state_dict
    load_model_state_dict = Strategy.load_model_state_dict
    optimizer_state = Strategy.optimizer_state
    load_optimizer_state_dict = Strategy.load_optimizer_state_dict
    save_checkpoint = Strategy.save_checkpoint
    load_checkpoint = Strategy.load_checkpoint
