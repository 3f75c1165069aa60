"""Open a transformer of any known family, frozen, with its parts where each family has them.

A model may come from an untrusted source: its code is never run, neither Python named by its configuration nor a
pickle's.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
)

from modulant.assets import resolve_backbone
from modulant.backbones.families import Family, Parts, Shape, family_of, known_families, parts_of
from modulant.backbones.families.base import at_path
from modulant.backbones.loading import freeze, quiet, read_config, translate_weight_errors
from modulant.backbones.stream import ResidualStream
from modulant.backbones.t5 import load_backbone
from modulant.backbones.tokenizers import at_revision, load_tokenizer

_HEADS = {"lm": AutoModelForCausalLM, "masked_lm": AutoModelForMaskedLM, "seq2seq": AutoModelForSeq2SeqLM}


@dataclass(frozen=True, eq=False)
class Backbone:
    """An opened model and where its parts are. Frozen, and in eval mode.

    Attributes:
        name: what it was opened by.
        model: of transformers, with its head or without.
        parts: stack and blocks.
        revision: of a hub id.
    """

    name: str
    model: Any
    parts: Parts
    revision: str | None = None

    @property
    def family(self) -> Family:
        return self.parts.family

    @property
    def shape(self) -> Shape:
        return self.parts.shape

    @property
    def stream(self) -> ResidualStream:
        return self.parts.shape.stream

    @property
    def blocks(self) -> nn.ModuleList:
        return self.parts.blocks

    @property
    def embed(self) -> Any:
        """Token embeddings; of a stack that reads images, what embeds patches."""
        return at_path(self.parts.stack, self.family.embed)

    @property
    def final_norm(self) -> Any:
        """Norm after the last block; None where each block ends with its norm."""
        return None if self.family.final_norm is None else at_path(self.parts.stack, self.family.final_norm)

    @property
    def head(self) -> Any:
        """What makes logits of the last hidden state; None without a head."""
        return self.model.get_output_embeddings()

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, loaded when first used; None where images are read.

        Raises:
            ValueError: there is none, or it cannot be read.
        """
        if self.family.reads != "input_ids":
            return None
        with _for_open_model():
            tokenizer = load_tokenizer(self.name, self.revision)
        if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes of a BERT's folder without files
            raise ValueError(f"open_model: {self.name!r} has no tokenizer; a folder must hold a tokenizer.json")
        return tokenizer

    def encode(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the last hidden state (B, S, D), after the family's final norm: what its own forward returns.

        Positions are counted as that forward counts them. Where they are learned (GPT-2, BERT), padding on the left
        moves the tokens after it: pad on the right.

        Args:
            inputs: token ids (B, S); pixels (B, channels, height, width) where images are read.
            mask: 1 at tokens, 0 at padding, (B, S); None: no padding.

        Raises:
            ValueError: more tokens than the model has positions, or a decoder that needs an encoder's output.
        """
        if self.family.needs_encoder:
            raise ValueError(f"encode: the decoder of {self.name!r} needs its encoder's output; call the model")
        limit = self.shape.n_positions
        if limit is not None and inputs.shape[1] > limit:
            raise ValueError(
                f"encode: {inputs.shape[1]:,} tokens, but {self.name!r} has {limit:,} positions; cut the text "
                f"(truncation=True, max_length={limit})"
            )
        given: dict[str, Any] = {self.family.reads: inputs} | ({} if mask is None else {"attention_mask": mask})
        if "lm" in self.family.heads:
            given["use_cache"] = False  # nothing follows that would read it
        return cast(Tensor, self.parts.stack(**given).last_hidden_state)


def open_model(
    name_or_folder: str,
    head: str | None = None,
    side: str | None = None,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Backbone:
    """Open a transformer of a known family, frozen and in eval mode. Poolers are not loaded.

    Args:
        name_or_folder: ``mini`` (bundled), a folder in Hugging Face's layout, or a hub id.
        head: None: the bare model; ``lm`` (causal), ``masked_lm`` or ``seq2seq`` (T5) with that head.
        side: which stack is modulated and measured: ``decoder`` of a T5, ``vision`` of a CLIP; None: the first.
        revision: branch, tag or commit of a hub id.
        dtype: of the weights.

    Raises:
        ValueError: there is no such model, its family is unknown or has no such head or side, it is quantised, or its
            weights cannot be read or are not those that its configuration describes.
    """
    name, place = name_or_folder, resolve_backbone(name_or_folder)
    with _for_open_model():
        config = read_config(name, revision)
        try:
            family, _ = family_of(config, side)
        except ValueError as error:
            raise ValueError(f"open_model: {name!r}: {error}") from error
        if head not in (None, *family.heads):
            right = ", ".join(map(repr, (None, *family.heads)))
            raise ValueError(f"open_model: head is {head!r}; of {name!r}, a {config.model_type}, it must be {right}")
        check_not_quantised(name, config)
        if head == "seq2seq":
            model = load_backbone(name, dtype, revision)
        else:
            model = _load(name, place, config, head, family, revision, dtype)
    return Backbone(name, model, parts_of(model, side), revision)


def check_not_quantised(name: str, config: Any) -> None:
    """Refuse a quantised model.

    Raises:
        ValueError: it is one.
    """
    if (quantised := getattr(config, "quantization_config", None)) is not None:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
        raise ValueError(
            f"model.backbone: {name!r} is quantised ({method}), which is not supported; load it with transformers, and "
            "save what model.dequantize() returns"
        )


def is_encoder_alone(config: Any) -> bool:
    """Whether a T5 was saved without its decoder."""
    return bool((getattr(config, "architectures", None) or [""])[0].endswith("EncoderModel"))


def of_random_weights(name: str, config: Any, head: str | None = None, dtype: torch.dtype = torch.float32) -> Backbone:
    """What `open_model` opens, but with random weights; inside ``with torch.device("meta")`` its shapes alone."""
    kind, bare = _class_of(config, head, family_of(config)[0])
    model = freeze(kind.from_config(config, trust_remote_code=False, dtype=dtype, **bare))
    return Backbone(name, model, parts_of(model))


def _class_of(config: Any, head: str | None, family: Family) -> tuple[Any, dict[str, Any]]:
    """What loads a model, and its arguments, by which a bare one has no pooler."""
    kind = AutoModel if head is None else _HEADS[head]
    if is_encoder_alone(config):
        kind = AutoModelForTextEncoding
    return kind, {"add_pooling_layer": False} if family.pooler and head is None else {}


def _load(
    name: str, place: str, config: Any, head: str | None, family: Family, revision: str | None, dtype: torch.dtype
) -> Any:
    kind, bare = _class_of(config, head, family)
    with translate_weight_errors(name), quiet():
        model, report = kind.from_pretrained(
            place,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            trust_remote_code=False,
            weights_only=True,
            **bare,
            **at_revision(revision),
        )
    # What else the files hold is beside the stack: other heads, poolers, the other tower.
    inside = re.compile(rf"(^|\.){re.escape(family.blocks)}\.\d+\.")
    more = [key for key in report["unexpected_keys"] if inside.search(key)]
    for what, keys in (("lacks", report["missing_keys"]), ("has no place for", more)):
        if keys:
            some = ", ".join(sorted(keys)[:3])
            wanted = "" if head is None else f" with head {head!r}"
            raise ValueError(
                f"open_model: {name!r}: the {type(model).__name__} that config.json describes {what} {len(keys)} "
                f"tensors of its weights ({some} …); config.json and weights must be of one model{wanted}"
            )
    return freeze(model)


@contextmanager
def _for_open_model() -> Iterator[None]:
    """Context in which errors about a configuration's backbone are errors about what is opened."""
    try:
        yield
    except ValueError as error:
        if not (text := str(error)).startswith("model.backbone: "):
            raise
        known = f"; known families are {known_families()}" if "cannot be loaded" in text else ""
        raise ValueError(f"open_model: {text.removeprefix('model.backbone: ')}{known}") from error
