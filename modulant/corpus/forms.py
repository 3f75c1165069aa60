"""How a model reads definitions and lemmas: a T5 by its task's prefix, a causal model as a continuation."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modulant.backbones.families import family_of
from modulant.backbones.sizes import SUPPORTED

PREFIX = "summarize: "
MAX_SOURCE = 128  # tokens, the end token included
MAX_TARGET = 16

QUESTION = ", in one word:"  # of a causal model, between a definition and its lemma

Hidden = Callable[[Tensor, Tensor], Tensor]  # (input_ids, attention_mask), both (B, S) → last hidden state (B, S, D)
Tokenizer = Any  # transformers' tokenizers share no public base class across versions


def encode_batch(
    tokenizer: Tokenizer, texts: list[str], max_length: int | None = None, special: bool = True
) -> list[list[int]]:
    """Token ids without special tokens; cut to ``max_length`` where that is given, by default special ones included."""
    if not texts:  # transformers reads the first
        return []
    if max_length is None:
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    cut = {"truncation": True, "max_length": max_length}
    return list(tokenizer(texts, add_special_tokens=special, **cut)["input_ids"])


class SourceForm(NamedTuple):
    """How a definition becomes tokens, and a lemma after it.

    Attributes:
        prefix: text before a definition.
        longest: the most tokens of a definition, special ones included.
        question: of a causal model, the text between a definition and its lemma; its definitions have no special
            tokens. "" of others.
        begin: of a causal model, the tokens before a definition: its begin token, if its tokenizer adds one. They are
            no part of the definition, and of its mean representation.
    """

    prefix: str = PREFIX
    longest: int = MAX_SOURCE
    question: str = ""
    begin: tuple[int, ...] = ()

    @property
    def names_lemmas(self) -> bool:
        """Whether the model writes lemmas; an encoder does not."""
        return bool(self.prefix or self.question)

    def sources(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of definitions."""
        return encode_batch(tokenizer, [self.prefix + text for text in texts], self.longest, not self.question)

    def prompts(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of prompts: definitions; the prefix is put before those that lack it."""
        return self.sources(tokenizer, [text.removeprefix(self.prefix) for text in texts])

    def asks(self, tokenizer: Tokenizer, text: str) -> list[int]:
        """Token ids of a whole prompt, whose answer `generate()` gives."""
        return [*self.begin, *self.prompts(tokenizer, [text])[0], *self.asked(tokenizer)]

    def lemmas(self, tokenizer: Tokenizer, lemmas: Sequence[str]) -> list[list[int]]:
        """Token ids of lemmas, without special tokens: of a causal model as they follow its question."""
        asked = len(self.asked(tokenizer))
        return [ids[asked:] for ids in encode_batch(tokenizer, [self._answered(lemma) for lemma in lemmas])]

    def targets(self, tokenizer: Tokenizer, lemmas: Sequence[str]) -> list[list[int]]:
        """Token ids of lemmas as they are learnt, with the end token."""
        if not self.question:
            return encode_batch(tokenizer, list(lemmas), MAX_TARGET)
        return [[*ids[: MAX_TARGET - 1], tokenizer.eos_token_id] for ids in self.lemmas(tokenizer, lemmas)]

    def asked(self, tokenizer: Tokenizer) -> list[int]:
        """Token ids of the question."""
        return encode_batch(tokenizer, [self.question])[0] if self.question else []

    def reads(self, hidden: Hidden) -> Hidden:
        """The last hidden states of definitions (B, S, D), by what also needs the tokens before them."""
        return partial(_after, hidden, self.begin) if self.begin else hidden

    def _answered(self, lemma: str) -> str:
        return f"{self.question} {lemma}" if self.question else lemma


OF_T5 = SourceForm()


def source_form(config: Any, tokenizer: Tokenizer) -> SourceForm:
    """How a model reads definitions: a T5 with the task's prefix, any other without one, within its positions.

    A causal model reads ``definition, in one word: lemma``, of which the definition's tokens alone are represented.

    Args:
        config: of transformers, of any family.
        tokenizer: the model's.

    Raises:
        ValueError: a causal model with too few positions for any definition.
    """
    if config.model_type in SUPPORTED:
        return OF_T5
    causal = False
    try:
        family, own = family_of(config)
        causal, positions = family.causal, family.shape(own).n_positions
    except ValueError:
        positions = getattr(config, "max_position_embeddings", None)
    limits = (MAX_SOURCE, tokenizer.model_max_length, positions)
    if not causal:
        return SourceForm("", min(int(limit) for limit in limits if limit))
    first, begins = tokenizer("a")["input_ids"][0], getattr(tokenizer, "bos_token_id", None)
    begin = (first,) if first == begins else ()
    after = len(SourceForm("", question=QUESTION).asked(tokenizer)) + MAX_TARGET
    longest = min(MAX_SOURCE, *(int(limit) - len(begin) - after for limit in limits[1:] if limit))
    if longest < 1:
        raise ValueError(
            f"model.backbone: a {config.model_type} with {positions} positions is too short for this task, whose "
            f"question and lemma take {after + len(begin)} tokens beside a definition"
        )
    return SourceForm("", longest, QUESTION, begin)


def _after(hidden: Hidden, begin: tuple[int, ...], input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    before = input_ids.new_empty(len(input_ids), len(begin))
    for column, token in enumerate(begin):
        before[:, column] = token  # no copy from the host
    ids, mask = torch.cat([before, input_ids], 1), torch.cat([torch.ones_like(before), attention_mask], 1)
    return hidden(ids, mask)[:, len(begin) :]
