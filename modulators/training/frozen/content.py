"""What the figures of a frozen model follow from, for the cache of such figures: see `modulant.storage.results`."""

import platform
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

_OWN = "modulators"  # the package whose code `content_key` has seen
_LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "numba")


def content_of(module: Any, learned: bool) -> tuple[object, ...] | None:
    """All that the outputs of a `FrozenModel` follow from, for `content_key`; None where that is not known.

    Not known it is of classes that are not this project's, whose code no key has seen, and of several processes, whose
    results are a collective's.

    Args:
        module: its backbone is loaded. Without `learned`, its outputs are meant inside ``handle.disabled()``.
        learned: the outputs with what learns attached, as it stands.
    """
    trainer = module._trainer
    if not _is_own(module) or module.model is None or (trainer is not None and trainer.world_size > 1):
        return None
    attached: object = None
    if learned:
        modulator = module.modulator
        if modulator is None or not _is_own(modulator):
            return None
        attached = type(modulator).__qualname__, modulator.init_args, _tensors(modulator)
    with module.handle.disabled():
        frozen = _tensors(module.model)
    config, generation = module.model.config, getattr(module.model, "generation_config", None)
    return (
        type(module).__qualname__,
        config.to_json_string(use_diff=False),
        str(config._attn_implementation),
        "" if generation is None else generation.to_json_string(use_diff=False),
        frozen,
        attached,
        list(module.layers),
        str(module.compiled),
        module.seed,
        None if trainer is None else str(trainer.precision),
        _machine(module.device),
    )


def _is_own(thing: nn.Module) -> bool:
    return type(thing).__module__.partition(".")[0] == _OWN


def _tensors(module: nn.Module) -> list[tuple[str, str, Any]]:
    """Name, precision and bytes of every parameter and buffer, each once."""
    found: Iterable[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    return [(name, str(value.dtype), _bytes(value)) for name, value in found]


def _bytes(value: Tensor) -> Any:
    held = value.detach().cpu().contiguous()
    return [list(held.shape), held.reshape(-1).view(torch.uint8).numpy()]


def _machine(device: torch.device) -> list[str]:
    """What the last digits of a product depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return [
        *(version(library) for library in _LIBRARIES),
        device.type,
        name,
        torch.backends.cpu.get_cpu_capability(),
        str(torch.get_num_threads()),
        torch.get_float32_matmul_precision(),
        str(torch.backends.cuda.matmul.allow_tf32),
    ]
