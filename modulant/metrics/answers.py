"""How well a model answers: loss, token accuracy and exact match, the same for any number of processes."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric

IGNORED = -100  # the label of a position without a target


class AnswerQuality(Metric):
    """Means over all target tokens and entries, however they were divided among batches and processes.

    ``loss``: cross-entropy in nats per target token, teacher-forced. ``token_accuracy``: share of target tokens whose
    score is the highest, teacher-forced. ``exact_match``: share of entries whose greedy answer is the target. A row
    without a target token is not counted: a process that has no batch left passes one.

    >>> quality = AnswerQuality()
    >>> quality.update(torch.eye(3)[None], torch.tensor([[0, 1, -100]]), torch.tensor([[0, 2, 7]]))
    >>> {name: round(float(value), 4) for name, value in quality.compute().items()}
    {'loss': 0.5514, 'token_accuracy': 1.0, 'exact_match': 0.0}
    """

    full_state_update = False
    loss_sum: Tensor
    tokens: Tensor
    right_tokens: Tensor
    entries: Tensor
    right_entries: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in ("loss_sum", "tokens", "right_tokens", "entries", "right_entries"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        logits: Float[Tensor, "batch targets vocabulary"],
        labels: Int[Tensor, "batch targets"],
        answers: Int[Tensor, "batch answered"],
    ) -> None:
        """Counts a batch.

        Args:
            logits: scores of the teacher-forced pass.
            labels: the targets, -100 where there is none.
            answers: greedy answers, of any length; tokens beyond the target's length are ignored.
        """
        real = labels != IGNORED
        self.loss_sum += F.cross_entropy(logits[real].float(), labels[real], reduction="sum").double()
        self.tokens += real.sum()
        self.right_tokens += (logits.argmax(-1) == labels)[real].sum()
        width = labels.shape[1]
        answers = F.pad(answers[:, :width], (0, max(0, width - answers.shape[1])), value=IGNORED)
        entry = real.any(dim=1)
        self.entries += entry.sum()
        self.right_entries += (((answers == labels) | ~real).all(dim=1) & entry).sum()

    def compute(self) -> dict[str, Tensor]:
        """The three figures; NaN when nothing was counted."""
        return {
            "loss": self.loss_sum / self.tokens,
            "token_accuracy": self.right_tokens / self.tokens,
            "exact_match": self.right_entries / self.entries,
        }
