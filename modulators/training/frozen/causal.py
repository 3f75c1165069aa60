"""A frozen causal language model: a definition, a question, and the lemma as what comes next."""

from typing import Any

import torch
from torch import Tensor

from modulant.backbones.families import Family
from modulant.backbones.opening import Backbone
from modulant.corpus.forms import SourceForm, source_form
from modulators.training.frozen.base import Batch
from modulators.training.frozen.lemmas import NamesLemmas, target_loss
from modulators.training.frozen.stack import FrozenStack
from modulators.training.objectives.base import Objective
from modulators.training.objectives.lemma import LemmaObjective


class FrozenCausalLM(NamesLemmas, FrozenStack):
    """Definition → lemma through a frozen causal model: ``[begin] definition, in one word: lemma [end]``.

    A definition's representation is the mean over its own tokens, which attend to nothing that follows: one pass gives
    it and the lemma's loss.
    """

    form: SourceForm
    _side = "decoder"
    _begin: Tensor
    _question: Tensor

    @property
    def family_name(self) -> str:
        """In an artefact."""
        return str(self._config.model_type)

    def _own_objective(self) -> Objective:
        return LemmaObjective()

    def _check_family(self, backbone: str, family: Family, config: Any, objective: Objective) -> None:
        if not family.causal:
            raise ValueError(
                f"model.backbone: {backbone!r} is a {config.model_type}; it must be a causal language model, such as a "
                "Llama or a GPT-2"
            )

    @property
    def _head(self) -> str:
        return "lm"

    def _taken_from(self, opened: Backbone) -> Any:
        self.read_by(opened.tokenizer)
        return opened.model

    def read_by(self, tokenizer: Any) -> None:
        """Take what stands before and after a definition from the backbone's tokenizer."""
        self.form = source_form(self._config, tokenizer)
        # As buffers they are where the batches are.
        self.register_buffer("_begin", torch.tensor(self.form.begin, dtype=torch.long), persistent=False)
        self.register_buffer("_question", torch.tensor(self.form.asked(tokenizer)), persistent=False)

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The last hidden state (B, S, D) of definitions, the base's only inside ``with self.handle.disabled():``."""
        return self.form.reads(self._read)(input_ids, attention_mask)

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        last: Tensor = self.stack(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        return last

    def _asked(self, batch: Batch, targets: Tensor | None = None) -> dict[str, Any]:
        """Definitions (B, S) between what comes before and after them, with their padding where it is.

        Padding in the middle needs no other place: it is masked, and positions count tokens alone. So what follows
        begins at one column for all rows.
        """
        ids, mask = batch["input_ids"], batch["attention_mask"]
        around = [part.expand(len(ids), -1) for part in (self._begin, self._question)]
        parts, masks = [around[0], ids, around[1]], [torch.ones_like(around[0]), mask, torch.ones_like(around[1])]
        if targets is not None:
            parts.append(targets.clamp(min=0))
            masks.append((targets >= 0).long())
        return {"input_ids": torch.cat(parts, 1), "attention_mask": torch.cat(masks, 1)}

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Last hidden states of definitions (B, S, D), and teacher-forced scores of the targets (B, T, V)."""
        given = self._asked(batch, batch["labels"])
        positions = (given["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        hidden = self._hidden(**given, position_ids=positions, use_cache=False)
        begin, width, n_targets = len(self._begin), batch["input_ids"].shape[1], batch["labels"].shape[1]
        logits = self.model.lm_head(hidden[:, -n_targets - 1 : -1])
        if (cap := getattr(self._config, "final_logit_softcapping", None)) is not None:
            logits = cap * torch.tanh(logits / cap)
        return hidden[:, begin : begin + width], logits

    def target_logits(self, batch: Batch) -> Tensor:
        return self(batch)[1]

    def _training_pass(self, batch: Batch, task: bool) -> tuple[Tensor | None, Tensor]:
        if task:
            hidden, logits = self(batch)
            return target_loss(logits, batch), hidden
        read = self.form.reads(lambda ids, mask: self._hidden(input_ids=ids, attention_mask=mask, use_cache=False))
        return None, read(batch["input_ids"], batch["attention_mask"])

    def _prompts(self, batch: Batch) -> tuple[dict[str, Tensor], int]:
        inputs = self._asked(batch)
        return inputs, inputs["input_ids"].shape[1]
