"""Exported models for transformers: after ``import wavegpt.auto`` its Auto classes read them, without remote code.

    model = AutoModelForCausalLM.from_pretrained("RUN/wavegpt")
    tokenizer = AutoTokenizer.from_pretrained("RUN/wavegpt")

`generate` decodes by the model's own caches: a window of keys, or a state. They cannot be cropped, so assisted decoding
is refused; beams and sampling work.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from wavegpt.attention.cache import Cache
from wavegpt.config import WaveConfig
from wavegpt.embedding import WaveEmbedding
from wavegpt.export import MODEL_TYPE, save
from wavegpt.model import WaveGPT


class WaveGPTConfig(PreTrainedConfig):
    """transformers' view of a `WaveConfig`, which is its field ``wave``."""

    model_type = MODEL_TYPE
    wave: dict[str, Any] | None = None

    @property
    def arm(self) -> WaveConfig:
        """The configuration of the model."""
        return WaveConfig(**(self.wave or {}))

    vocab_size = property(lambda self: self.arm.vocab_size)
    hidden_size = property(lambda self: self.arm.d_model)
    num_hidden_layers = property(lambda self: self.arm.layers)
    num_attention_heads = property(lambda self: self.arm.heads)
    max_position_embeddings = property(lambda self: self.arm.context)


class WaveGPTForCausalLM(PreTrainedModel, GenerationMixin):
    """A `WaveGPT` as transformers calls it."""

    config_class = WaveGPTConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _no_split_modules = ("Block",)

    def __init__(self, config: WaveGPTConfig) -> None:
        super().__init__(config)
        arm = config.arm
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):  # the initial weights are replaced
            placeholder = torch.arange(arm.vocab_size or 1) if arm.embedding.needs_ranks else None
            self.model = WaveGPT(arm, placeholder)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """What a folder does not hold: angles that follow from the ranks."""
        if isinstance(module, WaveEmbedding):
            module._rotate()
        else:
            super()._init_weights(module)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Cache | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits; positions are counted from the first token that is no padding, which must be on the left.

        Args:
            input_ids: (B, T); with a cache those that it has not seen.
            attention_mask: (B, tokens so far), 0 for padding on the left.
            past_key_values: what an earlier call returned.
            labels: (B, T), input_ids for the loss of predicting each from those before it; -100 where none is.
            use_cache: return a cache.
            logits_to_keep: of the last so many tokens alone; 0: of all.
        """
        if use_cache and past_key_values is None:
            past_key_values = self.model.new_cache()
        segments = None
        if attention_mask is not None and bool((attention_mask == 0).any()):
            segments = attention_mask[:, -input_ids.shape[1] :].long()
        logits = self.model(input_ids, segments=segments, cache=past_key_values, last=logits_to_keep == 1)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        logits = logits[:, -logits_to_keep:] if logits_to_keep else logits
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=past_key_values)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        next_sequence_length: int | None = None,
        past_key_values: Cache | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """The new tokens where a cache holds the others, else the last `context` ones, as `wavegpt.generate` does."""
        if past_key_values is not None:
            input_ids = input_ids[:, -1:] if next_sequence_length is None else input_ids[:, -next_sequence_length:]
        elif not (use_cache and self.model.config.attention.linear):
            input_ids = input_ids[:, -self.model.config.context :]
        return {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """The caches are the model's own."""
        return False

    def _reorder_cache(self, past_key_values: Cache, beam_idx: Tensor) -> Cache:
        """Rows of a cache as a beam search continues them."""
        past_key_values.reorder(beam_idx)
        return past_key_values

    def get_input_embeddings(self) -> nn.Module:
        """Waves or a table: a function of ids and positions."""
        return self.model.embedding

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """Write what `wavegpt.save` writes, which is one file whatever its size."""
        save(self.model, save_directory)
        if self.can_generate():
            self.generation_config.save_pretrained(save_directory)


AutoConfig.register(MODEL_TYPE, WaveGPTConfig, exist_ok=True)
AutoModelForCausalLM.register(WaveGPTConfig, WaveGPTForCausalLM, exist_ok=True)
