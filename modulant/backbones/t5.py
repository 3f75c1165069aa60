"""Find and load a T5 that writes answers, frozen.

`mini` is the bundled backbone, a path is a folder in Hugging Face's layout, and anything else is a hub id. The sizes
that a modulator needs are in the configuration, so arguments are checked before any weight is read.
"""

from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from modulant.assets import resolve_backbone
from modulant.backbones.generation import folder_settings
from modulant.backbones.loading import freeze, quiet, read_config, translate_weight_errors
from modulant.backbones.sizes import check_model_type
from modulant.backbones.tokenizers import at_revision as _at
from modulant.backbones.tokenizers import load_tokenizer


def load_t5(backbone: str, revision: str | None = None) -> tuple[Any, Any]:
    """Load a T5, frozen and in eval mode, and its tokenizer.

    Args:
        backbone: ``mini`` (bundled), a folder in Hugging Face's layout, or a hub id such as ``google-t5/t5-small``.
        revision: branch, tag or commit of a hub id.

    Raises:
        ValueError: there is no such backbone, it is not a T5, or its weights or tokenizer cannot be read.
    """
    load_config(backbone, revision)
    return load_backbone(backbone, revision=revision), load_tokenizer(backbone, revision)


def load_config(backbone: str, revision: str | None = None) -> Any:
    """Load the configuration of a backbone.

    Args:
        backbone: ``mini``, a folder, or a hub id such as ``google-t5/t5-small``.
        revision: branch, tag or commit of a hub id.

    Raises:
        ValueError: there is no such backbone, or it is not a T5.
    """
    config = read_config(backbone, revision)
    check_model_type(backbone, config.model_type)
    _check_head(backbone, config)
    if config.pad_token_id is None:
        raise ValueError(f"model.backbone: config.json of {backbone!r} has no pad_token_id, which pads T5's targets")
    if getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = config.pad_token_id  # as T5 was trained
    return config


def _check_head(backbone: str, config: Any) -> None:
    """Check that a configuration is of a model that writes answers, where it says of which.

    Raises:
        ValueError: it is of an encoder alone, a classifier, or a model whose output head is not among its weights.
    """
    names = getattr(config, "architectures", None) or ["T5ForConditionalGeneration"]
    heads = ("ForConditionalGeneration", "WithLMHeadModel")
    # T5 v1.0 uses its embeddings as head, so a T5Model has all of it.
    whole = names[0] == "T5Model" and config.scale_decoder_outputs
    if not whole and not any(head in name for name in names for head in heads):
        raise ValueError(
            f"model.backbone: {backbone!r} is a {names[0]}; it must have a decoder and an output head, as a "
            "T5ForConditionalGeneration has"
        )


def load_backbone(backbone: str, dtype: torch.dtype = torch.float32, revision: str | None = None) -> Any:
    """Load a T5, frozen and in eval mode.

    Raises:
        ValueError: the weights cannot be read, are incomplete, or have other shapes.
    """
    name, config = resolve_backbone(backbone), load_config(backbone, revision)
    with translate_weight_errors(backbone), quiet():
        model, report = AutoModelForSeq2SeqLM.from_pretrained(
            name,
            config=config,
            generation_config=folder_settings(name, config, revision),
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,
            weights_only=True,
            **_at(revision),
        )
    if report["missing_keys"]:
        some = ", ".join(sorted(report["missing_keys"])[:3])
        raise ValueError(f"model.backbone: {backbone!r} lacks {len(report['missing_keys'])} tensors ({some} …)")
    set_output_scale(model)
    return freeze(model)


def set_output_scale(model: Any) -> None:
    """Scale the decoder's output by 1/√d_model only where config.json says that the embeddings are the head.

    transformers 5.23 does that for T5, but scales the output of every umT5.
    """
    if model.config.model_type == "umt5":
        model.config.tie_word_embeddings = model.config.scale_decoder_outputs


def encode(
    model: Any, input_ids: Int[Tensor, "batch tokens"], attention_mask: Int[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens width"]:
    """Return the encoder's last hidden state."""
    return cast(Tensor, model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state)
