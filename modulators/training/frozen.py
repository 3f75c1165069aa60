"""Training over a frozen T5: it is loaded once and stays in eval mode, and only what is attached to it learns.

`ModulatedT5` and `AdaptedT5` define what is attached, its parameters and how it is saved. Task, figures and optimizer
are the same for both, so that a modulator and its controls differ in nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import LambdaLR

from modulant.backbones.generation import generate_greedily
from modulant.backbones.sharding import load_sharded
from modulant.backbones.sizes import check_layers
from modulant.backbones.stream import ResidualStream
from modulant.backbones.t5 import (
    RandomEncoder,
    enable_activation_checkpointing,
    encode,
    load_backbone,
    load_config,
    revision_of,
    stream_of,
)
from modulant.geometry import masked_mean
from modulant.metrics import AnswerQuality, EntryRepresentations
from modulators.arguments import (
    BackboneDtype,
    Compile,
    GenerationSettings,
    Layers,
    Schedule,
    check_cache,
    check_objective,
    check_precision,
    check_steps,
)
from modulators.base import Modulator
from modulators.comparison.generation import Comparison, compare
from modulators.training.compiling import compiled
from modulators.training.lower_cache import CacheSettings, LowerCache
from modulators.training.masks import prepared_mask
from modulators.training.objectives.base import Objective, TrainingBatch, to_device, total
from modulators.training.objectives.lemma import LemmaObjective
from modulators.training.processes import check_same_weights, frozen_tensors, gathered, shard_batches
from modulators.training.schedule import factor_at, group_settings, override_groups

Batch = dict[str, Any]
_SHARDED_CACHE = "model.cache: of a sharded encoder no layers can be left out; set it to null, or use ddp"


@runtime_checkable
class Handle(Protocol):
    """Holds what is attached to the backbone."""

    def disabled(self) -> AbstractContextManager[None]:
        """Inside, the model is the base model, bit for bit. May be nested."""
        ...


class FrozenT5(pl.LightningModule, ABC):
    """Definition → lemma through a frozen T5 to which something that learns is attached.

    Trains with AdamW on T5's own loss, the teacher-forced cross-entropy (nats per target token). The backbone is in
    eval mode always, receives no gradient, and is in no checkpoint.

    Args:
        learns: what is attached, in one word, which is the prefix of its tensors in a state dict.
        backbone: ``mini`` (bundled), a folder in Hugging Face's layout, or a hub id such as ``google-t5/t5-small``.
        layers: the encoder blocks that it is attached to.
        lr: AdamW's learning rate.
        weight_decay: AdamW's weight decay.
        schedule: of the learning rate: ``cosine``, to zero over the run, or ``constant``.
        backbone_dtype: precision of the frozen weights. What learns stays in fp32, and so does its optimizer.
        gradient_checkpointing: forget activations of the encoder's and decoder's blocks and compute them again.
        compile: compile the passes that train with torch.compile; ``reduce-overhead`` with CUDA graphs.
        seed: of the randomly initialised encoder that figures are compared with.
        caching: cache for the outputs of the frozen blocks below `layers`.
        objective: what training minimises; None: the lemma's cross-entropy.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone; a layer that it lacks.
    """

    modulator: Modulator | None
    handle: Handle | None

    def __init__(
        self,
        learns: Literal["modulator", "adapter", "blocks"],
        backbone: str,
        layers: Layers,
        lr: float,
        weight_decay: float,
        schedule: Schedule,
        backbone_dtype: BackboneDtype,
        gradient_checkpointing: bool,
        compile: Compile,
        seed: int,
        caching: CacheSettings,
        objective: Objective | None,
    ) -> None:
        super().__init__()
        self.objective = objective or LemmaObjective()
        self._learns = learns
        check_cache(layers, caching.where, caching.folder)
        self.backbone, self.lr, self.weight_decay, self.seed = backbone, lr, weight_decay, seed
        self.backbone_dtype, self.schedule = backbone_dtype, schedule
        self.gradient_checkpointing, self.compiled = gradient_checkpointing, compile
        self._config = load_config(backbone)
        self.backbone_revision = revision_of(backbone)
        chosen = None if isinstance(layers, str) else layers
        self.layers = check_layers(chosen, self._config.num_layers, "model.layers")
        self.model: Any = None
        self.handle = None
        self._compiled_pass: Callable[..., Any] | None = None
        self._compiled_encoder: Callable[..., Any] | None = None
        self._synsets: npt.NDArray[np.int64] | None = None  # rows of the lexicon
        self._base: Tensor | None = None  # the frozen encoder's representations of the training synsets
        self.caching = caching
        self.cache: LowerCache | None = None
        self.quality = AnswerQuality()
        self.generation = GenerationSettings()  # for `predict`

    @property
    def stream(self) -> ResidualStream:
        """The backbone's sizes, which a modulator is built for."""
        return stream_of(self._config)

    # What a subclass defines

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

    # How the backbone is treated

    def setup(self, stage: str) -> None:
        """Before the backbone is loaded: a trainer that would cast what learns is refused."""
        check_precision(self.trainer.precision)

    def configure_model(self) -> None:
        if self.model is not None:
            return
        dtype = getattr(torch, self.backbone_dtype)
        mesh = self._device_mesh
        if mesh is None:
            self.take(load_backbone(self.backbone, dtype))
            return
        if self.compiled:
            raise ValueError("model.compile must be false where the backbone is sharded over processes (fsdp.yaml)")
        if self.caching.where is not None:
            raise ValueError(_SHARDED_CACHE)
        device = self.trainer.strategy.root_device
        self.take(load_sharded(self.backbone, self._config, dtype, mesh["data_parallel"], device))

    def take(self, model: Any) -> None:
        """Make `model` the backbone: attach what learns to it, and prepare it for training as configured."""
        self.handle = self._attach(model)
        if self.gradient_checkpointing:
            enable_activation_checkpointing(model)
        if self.compiled:
            self._compiled_pass = compiled(model, self.compiled)
            self._compiled_encoder = compiled(model.encoder, self.compiled)
        if self.caching.where is not None:
            needs_ids = self.modulator is not None
            self.cache = LowerCache(self.caching, model.encoder, self.layers[0], bool(self.compiled), needs_ids)
        self.model = model
        self.train(self.training)
        # Each process has read the frozen weights, so DistributedDataParallel sends none, ever.
        self._ddp_params_and_buffers_to_ignore = list(frozen_tensors(self))
        check_same_weights(self)

    def train(self, mode: bool = True) -> "FrozenT5":
        """The backbone stays in eval mode: no dropout in it is ever active."""
        self.training = mode
        for child in self.children():
            if child is not self.model:
                child.train(mode)
        if self.model is not None and self.gradient_checkpointing:
            # The flag of the block itself, which transformers asks whether to checkpoint; a dropout has its own. It
            # goes off for evaluation: a block that checkpoints drops generate()'s cache, and answers become wrong.
            for block in [*self.model.encoder.block, *self.model.decoder.block]:
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
        own = self.state_dict()
        missing, extra = sorted(own.keys() - state_dict.keys()), sorted(state_dict.keys() - own.keys())
        misshapen = [key for key in own.keys() & state_dict.keys() if own[key].shape != state_dict[key].shape]
        shapes = f"of another shape {_some(sorted(misshapen))}"
        if missing or extra:
            raise ValueError(
                f"this checkpoint is of another {self._learns}: missing {_some(missing)}, not wanted {_some(extra)}"
                + (f", {shapes}" if misshapen else "")
            )
        if misshapen:
            first = min(misshapen)
            there, here = (" × ".join(map(str, some[first].shape)) for some in (state_dict, own))
            raise ValueError(
                f"this checkpoint is of another {self._learns} or backbone: {shapes} (the first is {there} in it and "
                f"{here} here); model.backbone is {self.backbone}, of width {self.stream.d_model} and "
                f"{self.stream.n_layers} encoder layers"
            )
        local = {key.removeprefix(f"{self._learns}."): value for key, value in state_dict.items()}
        return self._load_learned(local, assign)

    # What is computed

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's last hidden state (B, S, D), the base's only inside ``with self.handle.disabled():``."""
        return encode(self.model, input_ids, attention_mask)

    def static_embed(self, input_ids: Tensor) -> Tensor:
        """The backbone's input embeddings, (B, S, D)."""
        return self.model.shared(input_ids)

    def random_encoder(self) -> RandomEncoder:
        """A freshly initialised encoder of the same configuration."""
        return RandomEncoder(self._config, self.seed)

    def forward(self, batch: Batch) -> Any:
        """T5's output for a batch: loss, logits (B, T, V), the encoder's last hidden state (B, S, D)."""
        mask = prepared_mask(self.model.config, batch["attention_mask"], batch.get("padded"))
        hidden = self._cached(batch, mask)
        inputs = {"input_ids": batch["input_ids"]} if hidden is None else {"encoder_outputs": (hidden,)}
        run = self._compiled_pass or self.model
        return run(**inputs, attention_mask=mask, labels=batch["labels"], use_cache=False)

    def _cached(self, batch: Batch, mask: Tensor | None) -> Tensor | None:
        """The encoder's last hidden state of a training batch by the cache of its lower blocks; None without one."""
        if self.cache is None or "number" not in batch:
            return None
        return self.cache(batch["number"], batch["input_ids"], mask)

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
        """What the objective needs of a batch, in one pass of the encoder, and of the decoder where it needs that."""
        objective, lemma_loss = self.objective, None
        if objective.needs_lemmas:
            output = self(batch)
            hidden, lemma_loss = output.encoder_last_hidden_state, _lemma_loss(output, batch)
        if not objective.needs_synsets:
            return TrainingBatch(lemma_loss)
        if not objective.needs_lemmas:
            hidden = self._encode_training(batch)
        rows = batch["synset_rows"]
        with torch.autocast(self.device.type, enabled=False):
            representations = gathered(masked_mean(hidden, batch["attention_mask"]), len(rows))
        base = None if self._base is None else self._base[to_device(rows, self._base.device)]
        assert self._synsets is not None
        return TrainingBatch(lemma_loss, representations, base, self._synsets[rows])

    def _encode_training(self, batch: Batch) -> Tensor:
        mask = prepared_mask(self.model.config, batch["attention_mask"], batch.get("padded"))
        if (hidden := self._cached(batch, mask)) is not None:
            return hidden
        run = self._compiled_encoder or self.model.encoder
        last: Tensor = run(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
        return last

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self(batch).logits
        self.quality.update(logits, batch["labels"], self._answer(batch, batch["labels"].shape[1]))

    def on_validation_epoch_end(self) -> None:
        self._log_quality("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self._log_quality("test")

    def _log_quality(self, stage: str) -> None:
        figures = self.quality.compute()
        self.quality.reset()
        if self.trainer.sanity_checking:
            return
        for name, value in figures.items():
            # Every rank has the sums of all already; without sync_dist Lightning warns.
            self.log(f"{stage}/{name}", value, prog_bar=name == "loss", sync_dist=True, batch_size=1)

    def _answer(self, batch: Batch, max_tokens: int) -> Tensor:
        """Greedy answers without the start token, (B, at most max_tokens)."""
        data: Any = None if self._trainer is None else getattr(self._trainer, "datamodule", None)
        end = getattr(getattr(data, "tokenizer", None), "eos_token_id", None)  # which the targets end with
        answer: Tensor = generate_greedily(self.model, batch["input_ids"], batch["attention_mask"], max_tokens, end)
        return answer[:, 1:]

    def answers(self, batch: Batch, tokenizer: Any, settings: GenerationSettings) -> list[Comparison]:
        """The original's and the modulated model's answers to a batch of prompts."""
        assert self.handle is not None
        return compare(self.model, tokenizer, self.handle, batch["prompts"], batch, settings)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Comparison]:
        """Each prompt with both answers, generated as `generation` says."""
        tokenizer = self.trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        return self.answers(batch, tokenizer, self.generation)

    def configure_optimizers(self) -> Any:
        groups = self._parameter_groups()
        if not groups:
            raise ValueError(f"model.{self._learns}: it has no trainable parameter; use validate instead of fit")
        optimizer = torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay)
        steps = self.trainer.estimated_stepping_batches
        check_steps(self.schedule, steps)
        self._group_settings = group_settings(optimizer)
        scheduler = LambdaLR(optimizer, lambda step: factor_at(self.schedule, step, max(int(min(steps, 2**62)), 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_fit_start(self) -> None:
        """Prepare the objective; open the cache of the frozen lower blocks, where one is configured.

        Raises:
            ValueError: an objective that this run's data is not for; a cache that it cannot have, or above its limit.
            StorageError: the disk has no room for it.
        """
        self._prepare_objective()
        if self.cache is not None:
            self._open_cache(self.cache)

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
            notes.append(f"encoding {len(own):,} training synsets with the frozen encoder …")
        if self.trainer.is_global_zero and notes:
            print("\n".join(notes), flush=True)
        if objective.needs_base:
            self._base = self._base_representations(own.batches(int(data.tokenizer.pad_token_id)), len(own))

    @torch.no_grad()
    def _base_representations(self, batches: Sequence[tuple[Tensor, Tensor, Tensor]], n: int) -> Tensor:
        """The frozen encoder's representations (n, D), each rank encoding its share. A collective."""
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

    def _open_cache(self, cache: LowerCache) -> None:
        trainer = self.trainer
        data: Any = getattr(trainer, "datamodule", None)
        if not hasattr(data, "batch_shapes"):
            raise ValueError("model.cache: it keeps the batches of a WordNetDataModule, and the run has none")
        if isinstance(trainer.strategy, FSDPStrategy):
            raise ValueError(_SHARDED_CACHE)
        size = cache.open(data.batch_shapes(), self.device, Path(trainer.default_root_dir))
        if trainer.is_global_zero:
            each = f", in each of {trainer.world_size} processes" if trainer.world_size > 1 else ""
            print(f"caching {size}{each}; batches keep their members", flush=True)

    def on_fit_end(self) -> None:
        if self.cache is not None:
            self.cache.close()

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
            **({"cache": self.cache.describe()} if self.cache is not None else {}),
            "trainable_parameters": trainable,
            "frozen_parameters": frozen,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "schedule": self.schedule,
        }


def _lemma_loss(output: Any, batch: Batch) -> Tensor:
    """Mean cross-entropy over target tokens, or this rank's part of that mean.

    Processes share each batch and average their gradients. The weights (see `modulant.corpus.ragged`) make that average
    the gradient of the whole batch's mean. A process without a target has a loss of zero, whose gradients are zeros.
    """
    weight = batch.get("weight")
    if weight is None:
        loss: Tensor = output.loss
        return loss
    scores, labels = output.logits.flatten(0, 1).float(), batch["labels"].flatten()
    return torch.as_tensor(weight * F.cross_entropy(scores, labels, reduction="sum"))


def _some(keys: list[str]) -> str:
    """A few keys for a message."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return f"{keys[:3]}{more}" if keys else "none"
