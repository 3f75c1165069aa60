"""A frozen stack of any family that reads text, as `open_model` opens it."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modulant.backbones.families import Family, family_of, parts_of
from modulant.backbones.loading import RandomEncoder, enable_activation_checkpointing, read_config
from modulant.backbones.opening import Backbone, check_not_quantised, open_model
from modulant.compiling import compiled
from modulators.training.frozen.base import FrozenModel, FrozenSettings
from modulators.training.objectives.base import Objective


class FrozenStack(FrozenModel):
    """A frozen model of a known family; a subclass says which ones, and what its task is.

    Args: those of `FrozenModel`, without the stream, which follows from the backbone.

    Raises:
        ValueError: no such backbone, or one of another kind; a layer that it lacks.
    """

    def __init__(self, settings: FrozenSettings, objective: Objective | None) -> None:
        config = read_config(settings.backbone)
        check_not_quantised(settings.backbone, config)
        try:
            family, own = family_of(config)
        except ValueError as error:
            raise ValueError(f"model.backbone: {settings.backbone!r}: {error}") from error
        objective = objective or self._own_objective()
        self._check_family(settings.backbone, family, config, objective)
        super().__init__(settings, family.shape(own).stream, objective)
        self._config, self._family = config, family
        self._compiled_stack: Callable[..., Any] | None = None

    @abstractmethod
    def _own_objective(self) -> Objective:
        """What is minimised where a configuration names no objective."""

    @abstractmethod
    def _check_family(self, backbone: str, family: Family, config: Any, objective: Objective) -> None:
        """Refuse a backbone that is not of this kind, or that lacks what the objective needs.

        Raises:
            ValueError: it does.
        """

    @property
    @abstractmethod
    def _head(self) -> str | None:
        """The head that the backbone is opened with."""

    def _load(self) -> Any:
        if self._device_mesh is not None:
            raise self.refuse_sharding()
        try:
            opened = open_model(self.backbone, self._head, dtype=getattr(torch, self.backbone_dtype))
            return self._taken_from(opened)
        except ValueError as error:
            raise ValueError(f"model.backbone: {str(error).removeprefix('open_model: ')}") from error

    def refuse_sharding(self) -> ValueError:
        """The error for a strategy that shards the backbone."""
        return ValueError(f"trainer.strategy: a {self._config.model_type} is not sharded over processes; use ddp")

    def _taken_from(self, opened: Backbone) -> Any:
        """The model of an opened backbone."""
        return opened.model

    @property
    def stack(self) -> Any:
        """What reads token ids, without a head."""
        return self._parts.stack

    def _prepare(self, model: Any) -> None:
        self._parts = parts_of(model)
        if self.gradient_checkpointing:
            try:
                enable_activation_checkpointing(model)
            except ValueError as error:  # transformers has none for MPNet
                raise ValueError(
                    f"model.gradient_checkpointing must be false: transformers has none for {self._config.model_type}"
                ) from error
        if self.compiled:
            self._compiled_stack = compiled(self.stack, self.compiled)

    def _hidden(self, eagerly: bool = False, **inputs: Any) -> Tensor:
        """The last hidden state of a pass that may train, by the compiled stack where there is one."""
        run = self.stack if eagerly or self._compiled_stack is None else self._compiled_stack
        last: Tensor = run(**inputs).last_hidden_state
        return last

    def _checkpointed_blocks(self) -> Sequence[nn.Module]:
        return list(self._parts.blocks)

    @property
    def embed(self) -> Any:
        """The token embeddings."""
        return self.model.get_input_embeddings()

    def random_encoder(self) -> nn.Module:
        """A freshly initialised stack of the same configuration."""
        return RandomEncoder(self._config, self.seed)
