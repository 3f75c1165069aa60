"""The frozen T5: found, loaded, frozen; and what both training modules need of one.

`mini` is the bundled backbone, a path is a folder in Hugging Face's layout, and anything else is a hub id. Its
configuration alone says what a modulator must know, so arguments are checked before any weight is read. A backbone may
come from a stranger: no code in it is ever run, neither Python that its configuration names nor a pickle's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM
from transformers.utils import logging as transformers_logging

from modulant.assets import resolve_backbone
from modulant.backbones.sizes import check_backbone, check_model_type
from modulant.backbones.stream import ResidualStream
from modulant.backbones.tokenizers import at_revision as _at
from modulant.backbones.tokenizers import first_line, load_tokenizer


def load_t5(backbone: str, revision: str | None = None) -> tuple[Any, Any]:
    """A T5 with its weights, frozen and in eval mode, and its tokenizer.

    Args:
        backbone: ``mini`` (bundled), a folder in Hugging Face's layout, or a hub id such as ``google-t5/t5-small``.
        revision: branch, tag or commit of a hub id.

    Raises:
        ValueError: nothing is there, it is no T5, or its weights or its tokenizer cannot be read.
    """
    load_config(backbone, revision)
    return load_backbone(backbone, revision=revision), load_tokenizer(backbone, revision)


def load_config(backbone: str, revision: str | None = None) -> Any:
    """The configuration of a backbone.

    Args:
        backbone: ``mini``, a folder, or a hub id such as ``google-t5/t5-small``.
        revision: branch, tag or commit of a hub id.

    Raises:
        ValueError: nothing is there, or it is no T5.
    """
    name = resolve_backbone(backbone)
    check_backbone(backbone)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **_at(revision))
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(
            f"model.backbone: {backbone!r} cannot be loaded ({reason}); name 'mini', a folder with a config.json, "
            "or a hub id (google-t5/t5-small), which needs a network or a filled cache"
        ) from error
    check_model_type(backbone, config.model_type)
    return config


def revision_of(backbone: str, revision: str | None = None) -> str | None:
    """The commit of a hub id that `load_config` has just read, from the cache; None for what is no hub id.

    A configuration does not tell: transformers no longer keeps it there.
    """
    from huggingface_hub import try_to_load_from_cache

    if backbone == "mini" or Path(resolve_backbone(backbone)).is_dir():
        return None
    found = try_to_load_from_cache(backbone, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


def stream_of(config: Any) -> ResidualStream:
    """What a modulator must know of a T5 of this configuration."""
    return ResidualStream(d_model=config.d_model, n_layers=config.num_layers, vocab_size=config.vocab_size)


def load_backbone(backbone: str, dtype: torch.dtype = torch.float32, revision: str | None = None) -> Any:
    """A T5 with its weights, frozen and in eval mode.

    Raises:
        ValueError: the weights cannot be read, or some of the model's are not among them, or have another shape.
    """
    name = resolve_backbone(backbone)
    with reading(backbone), _no_progress_bar():
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            name,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,
            weights_only=True,
            **_at(revision),
        )
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"model.backbone: {backbone!r} lacks {len(report['missing_keys'])} tensors ({some} …)")
    return freeze(model)


@contextmanager
def reading(backbone: str) -> Iterator[None]:
    """Says in one line why weights cannot be read.

    Raises:
        ValueError: what a library said of them.
    """
    try:
        yield
    except UnpicklingError as error:
        raise ValueError(
            f"model.backbone: the weights of {backbone!r} are a pickle that holds more than tensors, and is not "
            "loaded, as that would run its code; name a backbone with a model.safetensors"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError, EOFError, KeyError) as error:
        if isinstance(error, ValueError) and str(error).startswith("model.backbone"):
            raise
        raise ValueError(f"model.backbone: the weights of {backbone!r} cannot be read ({first_line(error)})") from error


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws one over the tensors of a file, which takes no time; a download keeps its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def checkpoint_activations(model: Any) -> None:
    """Forget the activations of each block, and compute them again in the backward pass."""
    # gradient_checkpointing_enable is the name in older versions of transformers, and deprecated in newer ones.
    name = "activation_checkpointing" if hasattr(model, "activation_checkpointing_enable") else "gradient_checkpointing"
    getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})


def freeze(model: nn.Module) -> Any:
    """No gradients, and eval mode: dropout would be noise on a measurement."""
    return model.requires_grad_(False).eval()


def encode(
    model: Any, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens width"]:
    """The encoder's last hidden state."""
    return cast(Tensor, model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)


class RandomEncoder(nn.Module):
    """A freshly initialised encoder of the same configuration, in fp32: what the architecture alone achieves.

    Its token embeddings are drawn anew too. The global generator is left as it was.
    """

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = freeze(AutoModelForSeq2SeqLM.from_config(config, trust_remote_code=False, dtype=torch.float32))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return encode(self.model, input_ids, attention_mask)
