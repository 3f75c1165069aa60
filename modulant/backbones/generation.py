"""Greedy generation that depends on a backbone's weights alone, whatever its folder says about generation.

A folder can set anything in `generation_config.json`, or in the old places of `config.json`: a minimum length, beams,
forbidden repetitions. `generate()` applies all that its caller leaves open, and a figure would measure it.
"""

import copy
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from modulant.backbones.tokenizers import at_revision


def generate_greedily(
    model: Any, input_ids: Tensor, attention_mask: Tensor, max_new_tokens: int, end: int | None = None, **options: Any
) -> Any:
    """Return what `generate()` returns: the tokens with the highest score at each step, after those before them.

    These are a T5's start token, or a causal model's input.

    The model, its `generation_config` included, is not changed, so several threads may generate at once.

    Args:
        model: an encoder-decoder or a causal model of transformers.
        input_ids: (B, S).
        attention_mask: (B, S).
        max_new_tokens: of an answer, its end token included.
        end: id of the end token; None: the configuration's.
        options: `logits_processor`, and what `GenerationConfig` knows of outputs.
    """
    config = model.config
    end = config.eos_token_id if end is None else end
    first_end = end[0] if isinstance(end, list) else end
    processors = options.pop("logits_processor", None)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        use_cache=True,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        eos_token_id=end,
        pad_token_id=first_end if config.pad_token_id is None else config.pad_token_id,
        **options,
    )
    # generate() fills what is None in its argument from the model's own settings. So it runs on a shallow copy, which
    # shares modules, weights and hooks, and has no such settings.
    bare = copy.copy(model)
    bare.generation_config = GenerationConfig()
    return bare.generate(
        input_ids=input_ids, attention_mask=attention_mask, generation_config=settings, logits_processor=processors
    )


def folder_settings(name: str, config: Any, revision: str | None = None) -> Any:
    """The `generation_config.json` of a folder or hub id, for library users who call `generate()` themselves.

    Without one, or with one that transformers refuses, only the ids in config.json.
    """
    try:
        return GenerationConfig.from_pretrained(name, **at_revision(revision))
    except (OSError, ValueError, TypeError):
        ids = ("decoder_start_token_id", "eos_token_id", "pad_token_id")
        return GenerationConfig(**{key: getattr(config, key, None) for key in ids})
