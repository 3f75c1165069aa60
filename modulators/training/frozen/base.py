"""Training over a frozen transformer: it is loaded once and stays in eval mode, and only what is attached to it learns.

A subclass for a kind of backbone says how that is loaded, run and measured; one for what learns, what is attached, its
parameters and how it is saved. Objective, optimizer and figures are the same for all, so that a modulator and its
controls differ in nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from modulant.backbones.loading import revision_of
from modulant.backbones.sizes import check_layers
from modulant.backbones.stream import ResidualStream
from modulant.geometry import masked_mean
from modulant.metrics import EntryRepresentations
from modulant.schedule import factor_at, group_settings, override_groups
from modulant.storage import content_key, kept
from modulators.arguments import BackboneDtype, Compile, Layers, Schedule, check_objective, check_precision, check_steps
from modulators.base import Modulator
from modulators.training.frozen.content import content_of
from modulators.training.objectives.base import Objective, TrainingBatch, to_device, total
from modulators.training.processes import check_same_weights, frozen_tensors, gathered, shard_batches
from modulators.training.state import check_state

Batch = dict[str, Any]


@runtime_checkable
class Handle(Protocol):
    """Holds what is attached to the backbone."""

    def disabled(self) -> AbstractContextManager[None]:
        """Inside, the model is the base model, bit for bit. May be nested."""
        ...


@dataclass(frozen=True)
class FrozenSettings:
    """What a configuration says of every such model, as `FrozenModel` describes it."""

    backbone: str
    layers: Layers
    lr: float
    weight_decay: float
    schedule: Schedule
    backbone_dtype: BackboneDtype
    gradient_checkpointing: bool
    compile: Compile
    seed: int


class FrozenModel(pl.LightningModule, ABC):
    """A frozen transformer to which something that learns is attached.

    Trains with AdamW on an objective. The backbone is in eval mode always, receives no gradient, and is in no
    checkpoint.

    Args:
        backbone: a name, a folder in Hugging Face's layout, or a hub id.
        layers: the blocks that it is attached to.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        schedule: of the learning rate: ``cosine``, to zero over the run, or ``constant``.
        backbone_dtype: precision of the frozen weights: ``float32`` or ``bfloat16``. What learns and its optimizer stay
            in fp32.
        gradient_checkpointing: recompute the blocks' activations in the backward pass: slower, less memory.
        compile: ``true``: torch.compile for training steps; ``reduce-overhead``: CUDA graphs too. The latter is for
            small models.
        seed: of the randomly initialised encoder that figures are compared with.
        settings: the nine above together.
        stream: the backbone's sizes, which a modulator is built for.
        objective: what training minimises.

    Raises:
        ValueError: a layer that the backbone lacks.
    """

    modulator: Modulator | None
    handle: Handle | None
    _learns: ClassVar[Literal["modulator", "adapter", "blocks"]]  # the prefix of its tensors in a state dict
    _side = "encoder"  # of the blocks, in messages

    def __init__(self, settings: FrozenSettings, stream: ResidualStream, objective: Objective) -> None:
        super().__init__()
        self.objective, self.stream = objective, stream
        self.backbone, self.backbone_dtype, self.seed = settings.backbone, settings.backbone_dtype, settings.seed
        self.lr, self.weight_decay, self.schedule = settings.lr, settings.weight_decay, settings.schedule
        self.gradient_checkpointing, self.compiled = settings.gradient_checkpointing, settings.compile
        self.backbone_revision = revision_of(settings.backbone)
        chosen = None if isinstance(settings.layers, str) else settings.layers
        self.layers = check_layers(chosen, stream.n_layers, "model.layers", self._side)
        self.model: Any = None
        self.handle = None
        self._synsets: npt.NDArray[np.int64] | None = None  # rows of the lexicon
        self._base: Tensor | None = None  # the frozen model's representations of the training synsets

    # What a subclass for a kind of backbone defines

    @abstractmethod
    def _load(self) -> Any:
        """Load the backbone, frozen, as the run's strategy has it."""

    @abstractmethod
    def _prepare(self, model: Any) -> None:
        """Prepare the backbone for training as configured, after what learns is attached: checkpointing, compiling."""

    @abstractmethod
    def _checkpointed_blocks(self) -> Sequence[nn.Module]:
        """The blocks whose activations are computed again where ``gradient_checkpointing`` is on."""

    @property
    @abstractmethod
    def embed(self) -> Any:
        """The backbone's token embeddings, a module with a ``weight`` (V, D)."""

    @abstractmethod
    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's last hidden state (B, S, D), the base's only inside ``with self.handle.disabled():``."""

    @abstractmethod
    def random_encoder(self) -> nn.Module:
        """A freshly initialised encoder of the same configuration: (input_ids, attention_mask) → (B, S, D)."""

    @abstractmethod
    def _training_pass(self, batch: Batch, task: bool) -> tuple[Tensor | None, Tensor]:
        """One pass that trains.

        Args:
            task: whether the loss of the model's own task is needed.

        Returns:
            That loss, or this rank's part of it, None where it is not needed; and the last hidden state (B, S, D) of
            the definitions.
        """

    # What a subclass for what learns defines

    @property
    @abstractmethod
    def active_dims(self) -> Tensor:
        """The dimensions of the stream that may change, ascending."""

    @abstractmethod
    def _attach(self, model: Any) -> Handle:
        """Attach what learns to the backbone, before it is checkpointed or compiled."""

    @abstractmethod
    def _learned(self, prefix: str, keep_vars: bool) -> Mapping[str, Any]:
        """The state dict of what learns, each key behind `prefix`."""

    @abstractmethod
    def _load_learned(self, state: Mapping[str, Any], assign: bool) -> Any:
        """Load a state dict whose keys and shapes are right; keys without prefix."""

    @abstractmethod
    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Optimizer groups, each with a ``name``; every trainable parameter is in exactly one, none is empty."""

    @abstractmethod
    def _about(self) -> dict[str, Any]:
        """Facts about what learns, for the report."""

    @property
    def family_name(self) -> str | None:
        """The backbone's model type, for an artefact; None of a whole T5."""
        return None

    # How the backbone is treated

    def setup(self, stage: str) -> None:
        """Before the backbone is loaded: a trainer that would cast what learns is refused."""
        check_precision(self.trainer.precision)

    def configure_model(self) -> None:
        if self.model is None:
            self.take(self._load())

    def take(self, model: Any) -> None:
        """Make `model` the backbone: attach what learns to it, and prepare it for training as configured."""
        self.handle = self._attach(model)
        self._prepare(model)
        self.model = model
        self.train(self.training)
        # Each process has read the frozen weights, so DistributedDataParallel sends none, ever.
        self._ddp_params_and_buffers_to_ignore = list(frozen_tensors(self))
        check_same_weights(self)

    def train(self, mode: bool = True) -> "FrozenModel":
        """The backbone stays in eval mode: no dropout in it is ever active."""
        self.training = mode
        for child in self.children():
            if child is not self.model:
                child.train(mode)
        if self.model is not None and self.gradient_checkpointing:
            # The flag of the block itself, which transformers asks whether to checkpoint; a dropout has its own. It
            # goes off for evaluation: a block that checkpoints drops generate()'s cache, and answers become wrong.
            for block in self._checkpointed_blocks():
                block.training = mode
        return self

    # What is saved

    def state_dict(  # type: ignore[override]
        self, *, destination: dict[str, Any] | None = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """State dict of what learns, and nothing frozen: keys begin with ``modulator.`` or ``adapter.``."""
        destination = {} if destination is None else destination
        destination.update(self._learned(f"{prefix}{self._learns}.", keep_vars))
        return destination

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load a state dict of what learns; keys and shapes must be this module's.

        Raises:
            ValueError: keys are missing or left over, or a tensor has another shape.
        """
        check_state(state_dict, self.state_dict(), self._learns, self.backbone, self.stream)
        local = {key.removeprefix(f"{self._learns}."): value for key, value in state_dict.items()}
        return self._load_learned(local, assign)

    # What is computed

    def static_embed(self, input_ids: Tensor) -> Tensor:
        """The backbone's input embeddings, (B, S, D)."""
        return self.embed(input_ids)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The objective's loss, or this rank's part of it: its mean over ranks is the loss of the whole batch."""
        given = self._given(batch)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.objective.terms(given)
            loss = total(terms)
        several = self._trainer is not None and self.trainer.world_size > 1
        # Lightning's own bar reads a figure from the device at each step; `RunProgress` reads when it draws.
        self.log("train/loss", loss, sync_dist=several)
        if len(terms) > 1:
            self.log_dict({f"train/{name}": term.value for name, term in terms.items()}, sync_dist=several)
        # The factor is 1, or NaN if the loss is not finite: an infinite loss can have a finite gradient, and a NaN
        # gradient reaches every process.
        return loss * batch.get("factor", 1.0) * (1 + 0 * loss.detach())

    def _given(self, batch: Batch) -> TrainingBatch:
        """What the objective needs of a batch."""
        task_loss, hidden = self._training_pass(batch, self.objective.needs_task)
        if not self.objective.needs_synsets:
            return TrainingBatch(task_loss)
        rows = batch["synset_rows"]
        with torch.autocast(self.device.type, enabled=False):
            representations = gathered(masked_mean(hidden, batch["attention_mask"]), len(rows))
        base = None if self._base is None else self._base[to_device(rows, self._base.device)]
        assert self._synsets is not None
        return TrainingBatch(task_loss, representations, base, self._synsets[rows])

    def configure_optimizers(self) -> Any:
        groups = self._parameter_groups()
        if not groups:
            raise ValueError(f"model.{self._learns}: it has no trainable parameter; use validate instead of fit")
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        optimizer._step_supports_amp_scaling = False  # so that fp16's gradients can be clipped
        steps = self.trainer.estimated_stepping_batches
        check_steps(self.schedule, steps)
        self._group_settings = group_settings(optimizer)
        scheduler = LambdaLR(optimizer, lambda step: factor_at(self.schedule, step, max(int(min(steps, 2**62)), 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Prepare the objective.

        Raises:
            ValueError: an objective that this run's data is not for.
        """
        self._prepare_objective()

    def _prepare_objective(self) -> None:
        objective = self.objective
        if not objective.needs_synsets:
            return
        data: Any = getattr(self.trainer, "datamodule", None)
        check_objective(type(objective).__name__, objective.needs_synsets, getattr(data, "near_pairs", None))
        own = data.training_synsets
        self._synsets = own.synsets
        try:
            notes = [*objective.prepare(data.corpus.lexicon, own.synsets)]
        except ValueError as error:
            raise ValueError(f"model.objective: {error}") from error
        if objective.needs_base:
            notes.append(f"encoding {len(own):,} training synsets with the frozen model …")
        if self.trainer.is_global_zero and notes:
            print("\n".join(notes), flush=True)
        if objective.needs_base:
            self._base = self._base_representations(own.batches(int(data.tokenizer.pad_token_id)), len(own))

    def content(self, learned: bool = False) -> tuple[object, ...] | None:
        """All that figures of this module follow from, for `content_key`; None where that is not known.

        Args:
            learned: with what learns attached, as it stands; else of the frozen model.
        """
        return content_of(self, learned)

    def _base_representations(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], n: int) -> Tensor:
        """The frozen model's representations (n, D), from the cache or by `_encoded_base`. A collective."""
        content = self.content()
        key = None if content is None else content_key("training", content, batches)
        found = kept("representations", key, lambda: {"points": self._encoded_base(batches, n).cpu().numpy()})
        return torch.from_numpy(found["points"]).to(self.device)

    @torch.no_grad()
    def _encoded_base(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], n: int) -> Tensor:
        """The frozen model's representations (n, D), each rank encoding its share. A collective."""
        assert self.handle is not None
        representations = EntryRepresentations(n, self.stream.d_model).to(self.device)
        with self.handle.disabled():
            for (rows, input_ids, mask), counts in shard_batches(
                batches, self.trainer.global_rank, self.trainer.world_size
            ):
                mask = mask.to(self.device)
                hidden = self.encode(input_ids.to(self.device), mask)
                if counts:
                    representations.update(rows, hidden, mask)
        found: Tensor = representations.compute()
        return found

    def on_train_start(self) -> None:
        """A resumed run takes its rates and weight decay from the configuration, not from the checkpoint."""
        override_groups(self.trainer.optimizers[0], cast(LambdaLR, self.lr_schedulers()), self._group_settings)

    def describe(self) -> dict[str, Any]:
        """Facts about the model, for the report."""
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in self.parameters()) - trainable if self.model is not None else None
        return {
            "class": type(self).__name__,
            "backbone": self.backbone,
            "backbone_revision": self.backbone_revision,
            "backbone_dtype": self.backbone_dtype,
            "d_model": self.stream.d_model,
            "n_layers": self.stream.n_layers,
            "vocab_size": self.stream.vocab_size,
            **self._about(),
            "layers": self.layers,
            "objective": self.objective.describe(),
            **self._about_passes(),
            "trainable_parameters": trainable,
            "frozen_parameters": frozen,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "schedule": self.schedule,
        }

    def _about_passes(self) -> dict[str, Any]:
        """Facts about how the passes are computed, for the report."""
        return {}
