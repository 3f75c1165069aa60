"""A frozen T5 to which something that learns is attached: definition → lemma.

`Modulated`, `Adapted` and `Tuned` define what is attached. Task and figures are the same for all.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn

from modulant.backbones.families import stream_of
from modulant.backbones.loading import RandomEncoder, enable_activation_checkpointing
from modulant.backbones.sharding import load_sharded
from modulant.backbones.t5 import encode, load_backbone, load_config
from modulant.compiling import compiled
from modulators.arguments import check_cache
from modulators.training.frozen.base import Batch, FrozenSettings
from modulators.training.frozen.lemmas import NamesLemmas, target_loss
from modulators.training.lower_cache import CacheSettings, LowerCache
from modulators.training.masks import prepared_mask
from modulators.training.objectives.base import Objective
from modulators.training.objectives.lemma import LemmaObjective

_SHARDED_CACHE = "model.cache: of a sharded encoder no layers can be left out; set it to null, or use ddp"


class FrozenT5(NamesLemmas):
    """Definition → lemma through a frozen T5 to which something that learns is attached.

    Trains by default on T5's own loss, the teacher-forced cross-entropy (nats per target token).

    Args:
        backbone: ``mini`` (bundled), a folder, or a hub id such as google-t5/t5-small. A folder is in Hugging Face's
            layout.
        cache: compute the frozen blocks below `layers` once a run: in ``memory``, or on ``disk``. In memory is the
            model's device; on disk is a memory-mapped file. Batches then keep their members over the run, and the
            layers must not hold 0.
        cache_dtype: precision of the cache; null: the stream's own, which is exact. An fp32 stream in ``bfloat16``
            takes half the room and is rounded, so the run is another one.
        cache_limit_gib: the most that a process may keep, in GiB.
        cache_folder: where the file of ``disk`` goes; null: the run folder.
        caching: the four of the cache together.
        objective: what training minimises; null: the lemma's cross-entropy.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone; a layer that it lacks.
    """

    def __init__(self, settings: FrozenSettings, caching: CacheSettings, objective: Objective | None) -> None:
        check_cache(settings.layers, caching.where, caching.folder)
        config = load_config(settings.backbone)
        super().__init__(settings, stream_of(config), objective or LemmaObjective())
        self._config = config
        self._compiled_pass: Callable[..., Any] | None = None
        self._compiled_encoder: Callable[..., Any] | None = None
        self.caching = caching
        self.cache: LowerCache | None = None

    # How the backbone is treated

    def _load(self) -> Any:
        dtype = getattr(torch, self.backbone_dtype)
        mesh = self._device_mesh
        if mesh is None:
            return load_backbone(self.backbone, dtype)
        if self.compiled:
            raise ValueError("model.compile must be false where the backbone is sharded over processes (fsdp.yaml)")
        if self.caching.where is not None:
            raise ValueError(_SHARDED_CACHE)
        device = self.trainer.strategy.root_device
        return load_sharded(self.backbone, self._config, dtype, mesh["data_parallel"], device)

    def _prepare(self, model: Any) -> None:
        if self.gradient_checkpointing:
            enable_activation_checkpointing(model)
        if self.compiled:
            self._compiled_pass = compiled(model, self.compiled)
            self._compiled_encoder = compiled(model.encoder, self.compiled)
        if self.caching.where is not None:
            needs_ids = self.modulator is not None
            self.cache = LowerCache(self.caching, model.encoder, self.layers[0], bool(self.compiled), needs_ids)

    def _checkpointed_blocks(self) -> Sequence[nn.Module]:
        return [*self.model.encoder.block, *self.model.decoder.block]

    # What is computed

    @property
    def embed(self) -> Any:
        """The token embeddings, which encoder and decoder share."""
        return self.model.shared

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The encoder's last hidden state (B, S, D), the base's only inside ``with self.handle.disabled():``."""
        return encode(self.model, input_ids, attention_mask)

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

    def target_logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self(batch).logits
        return logits

    def _cached(self, batch: Batch, mask: Tensor | None) -> Tensor | None:
        """The encoder's last hidden state of a training batch by the cache of its lower blocks; None without one."""
        if self.cache is None or "number" not in batch:
            return None
        return self.cache(batch["number"], batch["input_ids"], mask)

    def _training_pass(self, batch: Batch, task: bool) -> tuple[Tensor | None, Tensor]:
        """One pass of the encoder, and of the decoder where its loss is needed."""
        if task:
            output = self(batch)
            loss = output.loss if "weight" not in batch else target_loss(output.logits, batch)
            return loss, output.encoder_last_hidden_state
        mask = prepared_mask(self.model.config, batch["attention_mask"], batch.get("padded"))
        if (hidden := self._cached(batch, mask)) is not None:
            return None, hidden
        run = self._compiled_encoder or self.model.encoder
        return None, run(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state

    # The cache of the frozen lower blocks

    def on_fit_start(self) -> None:
        """Prepare the objective; open the cache of the frozen lower blocks, where one is configured.

        Raises:
            ValueError: an objective that this run's data is not for; a cache that it cannot have, or above its limit.
            StorageError: the disk has no room for it.
        """
        super().on_fit_start()
        if self.cache is not None:
            self._open_cache(self.cache)

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

    def _about_passes(self) -> dict[str, Any]:
        return {} if self.cache is None else {"cache": self.cache.describe()}
