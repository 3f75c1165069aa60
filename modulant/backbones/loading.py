"""Open files of transformers' layout: configurations, and what holds for the weights of every family.

A model may come from an untrusted source: its code is never run, neither Python named by its configuration nor a
pickle's.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForSeq2SeqLM
from transformers.utils import logging as transformers_logging

from modulant.assets import resolve_backbone
from modulant.backbones.hub import check_reachable
from modulant.backbones.sizes import SUPPORTED, check_backbone
from modulant.backbones.tokenizers import at_revision as _at
from modulant.backbones.tokenizers import first_line


def read_config(backbone: str, revision: str | None = None) -> Any:
    """Read the configuration of a model of any family.

    Raises:
        ValueError: there is none, transformers does not know it, or its weights are not in files of the usual names.
    """
    name = resolve_backbone(backbone)
    check_backbone(backbone)
    try:
        check_reachable(name, revision)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **_at(revision))
        if config.model_type == "umt5":  # transformers forgets it
            tied = config.get_config_dict(name, **_at(revision))[0].get("tie_word_embeddings")
            config.scale_decoder_outputs = tied is not False
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise ValueError(
            f"model.backbone: {backbone!r} cannot be loaded ({reason}); it must be 'mini', a folder with a "
            "config.json, or a hub id (google-t5/t5-small), which needs a network or a filled cache"
        ) from error
    # Weights from elsewhere than the files whose digest an artefact has.
    if getattr(config, "transformers_weights", None) is not None:
        raise ValueError(
            f"model.backbone: config.json of {backbone!r} names a file of weights (transformers_weights), which is not "
            "supported; name the file model.safetensors, and remove that key"
        )
    if (Path(name) / "adapter_config.json").is_file():
        raise ValueError(
            f"model.backbone: {backbone!r} holds an adapter of peft (adapter_config.json); merge it into its base model"
        )
    # What a folder can set here that changes no answer, but the form of a model's output, or the kernel of attention.
    config.return_dict, config.output_attentions, config.output_hidden_states = True, False, False
    return config


def revision_of(backbone: str, revision: str | None = None) -> str | None:
    """Commit of a hub id that `read_config` has just read, from the cache; None for anything else.

    transformers no longer stores it in the configuration.
    """
    from huggingface_hub import try_to_load_from_cache

    if backbone == "mini" or Path(resolve_backbone(backbone)).is_dir():
        return None
    found = try_to_load_from_cache(backbone, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None


@contextmanager
def translate_weight_errors(backbone: str) -> Iterator[None]:
    """Context that turns library errors from reading weights into one-line messages.

    Raises:
        ValueError: the weights cannot be read.
    """
    try:
        yield
    except UnpicklingError as error:
        raise ValueError(
            f"model.backbone: the weights of {backbone!r} are a pickle with more than tensors, which is not loaded, as "
            "that would run its code; use a backbone with a model.safetensors"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError, EOFError, KeyError) as error:
        if isinstance(error, ValueError) and str(error).startswith("model.backbone"):
            raise
        raise ValueError(f"model.backbone: the weights of {backbone!r} cannot be read ({first_line(error)})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Context without transformers' progress bar over tensors, its tables and its advice; downloads keep their bars.

    What is missing becomes an error, and whether T5's embeddings are tied follows from its weights.
    """
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def enable_activation_checkpointing(model: Any) -> None:
    """Enable activation checkpointing: the backward pass recomputes the activations of each block."""
    # Called gradient_checkpointing_enable in older versions of transformers; deprecated in newer ones.
    name = "activation_checkpointing" if hasattr(model, "activation_checkpointing_enable") else "gradient_checkpointing"
    getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
    # Reentrant checkpointing needs embeddings with a gradient; here they would only take the backward pass through the
    # blocks below the modulated ones, and torch.compile cannot trace the hook.
    model.disable_input_require_grads()


def freeze(model: nn.Module) -> Any:
    """Disable gradients and switch to eval mode: dropout would add noise to measurements."""
    return model.requires_grad_(False).eval()


def encoder_of(model: nn.Module) -> Any:
    """The encoder of an encoder–decoder, or the whole. A BERT has a part of that name too, but no decoder."""
    return model.encoder if hasattr(model, "decoder") and hasattr(model, "encoder") else model


class RandomEncoder(nn.Module):
    """Randomly initialised encoder of the same configuration, in fp32: what the architecture alone achieves.

    Of a T5, or of any model that reads text. Its token embeddings are random too. The global random state is not
    changed.
    """

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind = AutoModelForSeq2SeqLM if config.model_type in SUPPORTED else AutoModel
            self.model = freeze(kind.from_config(config, trust_remote_code=False, dtype=torch.float32))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = encoder_of(self.model)(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return cast(Tensor, hidden)
