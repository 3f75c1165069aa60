"""A frozen encoder of any family: definitions in, representations out, and no lemma. BERT and what follows it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modulant.backbones.families import Family
from modulant.backbones.families.base import at_path
from modulant.backbones.opening import Backbone, is_encoder_alone
from modulant.backbones.sizes import SUPPORTED
from modulators.arguments import NO_MASKS, refuse_masked
from modulators.training.frozen.base import Batch
from modulators.training.frozen.stack import FrozenStack
from modulators.training.masks import prepared_mask
from modulators.training.objectives.base import Objective
from modulators.training.objectives.relational import RelationalObjective


class FrozenEncoder(FrozenStack):
    """A frozen encoder. Its own task, where an objective needs one, is to find hidden tokens of definitions.

    Nothing is measured batch by batch in a validation: callbacks measure the whole population at its end.
    """

    @property
    def family_name(self) -> str | None:
        """In an artefact; None of a whole T5."""
        whole_t5 = self._config.model_type in SUPPORTED and not is_encoder_alone(self._config)
        return None if whole_t5 else str(self._config.model_type)

    def _own_objective(self) -> Objective:
        return RelationalObjective(task=0.0)

    def _check_family(self, backbone: str, family: Family, config: Any, objective: Objective) -> None:
        if family.causal or family.reads != "input_ids":
            raise ValueError(
                f"model.backbone: {backbone!r} is a {config.model_type}; it must be an encoder of text, such as a BERT"
            )
        has = (getattr(config, "architectures", None) or ["model without a head"])[0]
        if objective.needs_task and not (family.masked_head and has.endswith("ForMaskedLM")):
            raise refuse_masked(type(objective).__name__, f"{backbone!r} is a {has}, which has no such head")

    @property
    def _head(self) -> str | None:
        return "masked_lm" if self.objective.needs_task else None

    def _taken_from(self, opened: Backbone) -> Any:
        return opened.parts.stack if self._head is None else opened.model  # of a T5 its encoder alone

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden state (B, S, D), the base's only inside ``with self.handle.disabled():``."""
        last: Tensor = self.stack(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return last

    def on_fit_start(self) -> None:
        """Prepare the objective.

        Raises:
            ValueError: an objective that this run's data is not for.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if self.objective.needs_task and getattr(data, "mask_share", None) is None:
            raise refuse_masked(type(self.objective).__name__, NO_MASKS)
        super().on_fit_start()

    def _training_pass(self, batch: Batch, task: bool) -> tuple[Tensor | None, Tensor]:
        mask = prepared_mask(self.model.config, batch["attention_mask"], batch.get("padded"))
        hidden = self._hidden(input_ids=batch["input_ids"], attention_mask=mask)
        return self._masked_loss(batch, mask) if task else None, hidden

    def _masked_loss(self, batch: Batch, mask: Tensor | None) -> Tensor:
        """Mean cross-entropy over hidden tokens, or this rank's part of that mean; 0 where none is hidden."""
        # Not by CUDA graphs, whose second pass in a step overwrites what the first one returned.
        graphs = self.compiled == "reduce-overhead"
        hidden = self._hidden(eagerly=graphs, input_ids=batch["masked_ids"], attention_mask=mask)
        scores = hidden.flatten(0, 1)[batch["masked_at"]]
        for path in self._family.masked_head:
            scores = at_path(self.model, path)(scores)
        loss = F.cross_entropy(scores.float(), batch["masked_targets"], reduction="sum")
        return torch.as_tensor(batch["masked_weight"] * loss)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing: the loop is there for the callbacks, which measure the population when it ends."""

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Nothing, as in a validation."""
