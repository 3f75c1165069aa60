"""The task: the lemma of a definition, teacher-forced in training and answered greedily when it is measured."""

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modulant.backbones.generation import generate_greedily
from modulant.metrics import AnswerQuality
from modulant.metrics.logged import log_quality
from modulators.arguments import GenerationSettings
from modulators.comparison.generation import Comparison, compare
from modulators.training.frozen.base import Batch, FrozenModel


class NamesLemmas(FrozenModel):
    """A frozen model that writes lemmas: how well it does is measured, and it can be asked. A mixin."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.quality = AnswerQuality()
        self.generation = GenerationSettings()  # for `predict`

    @abstractmethod
    def target_logits(self, batch: Batch) -> Tensor:
        """Teacher-forced scores of the targets (B, T, V)."""

    def _prompts(self, batch: Batch) -> tuple[dict[str, Tensor], int]:
        """What `generate()` gets to name lemmas, and how many tokens at its result's beginning are no answer."""
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}, 1  # the start token

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.target_logits(batch)
        self.quality.update(logits, batch["labels"], self._answer(batch, batch["labels"].shape[1]))

    def on_validation_epoch_end(self) -> None:
        log_quality(self, "val", "loss")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        log_quality(self, "test", "loss")

    def _answer(self, batch: Batch, max_tokens: int) -> Tensor:
        """Greedy answers, (B, at most max_tokens)."""
        data: Any = None if self._trainer is None else getattr(self._trainer, "datamodule", None)
        end = getattr(getattr(data, "tokenizer", None), "eos_token_id", None)  # which the targets end with
        inputs, begin = self._prompts(batch)
        answer: Tensor = generate_greedily(self.model, **inputs, max_new_tokens=max_tokens, end=end)
        return answer[:, begin:]

    def answers(self, batch: Batch, tokenizer: Any, settings: GenerationSettings) -> list[Comparison]:
        """The original's and the modulated model's answers to a batch of prompts."""
        assert self.handle is not None
        inputs, begin = self._prompts(batch)
        return compare(self.model, tokenizer, self.handle, batch["prompts"], inputs, settings, begin)

    def predict_step(self, batch: Batch, batch_idx: int) -> list[Comparison]:
        """Each prompt with both answers, generated as `generation` says."""
        tokenizer = self.trainer.datamodule.tokenizer  # type: ignore[attr-defined]
        return self.answers(batch, tokenizer, self.generation)


def target_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy over target tokens, or this rank's part of that mean.

    Processes share each batch and average their gradients. The weights (see `modulant.corpus.ragged`) make that average
    the gradient of the whole batch's mean. A process without a target has a loss of zero, whose gradients are zeros.

    Args:
        logits: (B, T, V).
        batch: with its ``labels`` (B, T), and with ``weight`` where several processes share it.
    """
    scores, labels = logits.flatten(0, 1).float(), batch["labels"].flatten()
    weight = batch.get("weight")
    if weight is None:
        return F.cross_entropy(scores, labels)
    return torch.as_tensor(weight * F.cross_entropy(scores, labels, reduction="sum"))
