"""What is read: passages that are long enough for a spectrum, and the five prompts of the lens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from modulant.reports.wording import counted
from probes.attention.texts import wordnet_examples
from probes.opening import special_ids

PROMPTS = {
    "quantum": "The quantum mechanical wave function describes tunneling inside stars",
    "legal": "This agreement indemnifies the contractor against all third-party claims arising from negligence",
    "riddle": "I speak without a mouth and hear without ears; what am I?",
    "coding": "Write a Python function that returns the greatest common divisor using Euclid's algorithm",
    "ambiguous": "Describe the color of a square circle",
}
PASSAGES = 8
LEAST = 128  # tokens: fewer have no spectrum
_LENGTH = 300  # tokens that a passage of WordNet has at least
_LONGEST = 1024
_EXAMPLES = 50  # of WordNet, for each passage: more than it needs


@dataclass(frozen=True, eq=False)
class Text:
    """A text as tokens.

    Attributes:
        ids: (T,).
        special: (T,) whether a token is no part of the text.
    """

    ids: Tensor
    special: Tensor

    @property
    def measured(self) -> Tensor:
        """Positions whose states are measured: all but the first and special tokens."""
        keep = ~self.special
        keep[0] = False
        return keep.nonzero().flatten()

    def shuffled(self, generator: torch.Generator) -> "Text":
        """The same tokens in another order; the first and special tokens stay where they are."""
        places = self.measured
        ids = self.ids.clone()
        ids[places] = self.ids[places[torch.randperm(len(places), generator=generator)]]
        return Text(ids, self.special)


@dataclass(frozen=True, eq=False)
class Passages:
    """What spectra are measured on.

    Attributes:
        texts: those that are long enough.
        what: a description.
        notes: what was cut or left out.
    """

    texts: Sequence[Text]
    what: str
    notes: Sequence[str] = ()


def as_text(backbone: Backbone, tokenizer: Any, line: str, limit: int | None = None) -> Text:
    """A text as the model reads it alone, with its special tokens.

    Raises:
        ValueError: a token that the model does not have.
    """
    limit = min(limit or _LONGEST, backbone.shape.n_positions or _LONGEST)
    ids = tokenizer.encode(line, truncation=True, max_length=limit)
    if ids and max(ids) >= backbone.shape.vocab_size:
        raise ValueError(
            f"the tokenizer of {backbone.name!r} gives the token {max(ids)}, and the model has "
            f"{backbone.shape.vocab_size:,}; it needs the tokenizer that it was trained with"
        )
    special = set(special_ids(tokenizer)) - {tokenizer.unk_token_id}
    return Text(torch.tensor(ids), torch.tensor([i in special for i in ids], dtype=torch.bool))


def read_passages(file: Path) -> list[str]:
    """Paragraphs of a file, with empty lines between them.

    Raises:
        ValueError: it cannot be read, or is empty.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ValueError(f"--texts: {file} cannot be read ({said})") from error
    lines = [line.strip() for line in text.splitlines()]
    found = [" ".join(part.split()) for part in "\n".join(lines).split("\n\n") if part.strip()]
    if not found:
        raise ValueError(f"--texts: {file} holds no text; write one passage a paragraph, with an empty line between")
    return found


def passages_of(backbone: Backbone, tokenizer: Any, file: Path | None) -> Passages:
    """The passages of a file, or examples of WordNet joined into passages.

    Raises:
        ValueError: as of `read_passages`.
    """
    if file is None:
        texts = [as_text(backbone, tokenizer, line) for line in _of_wordnet(backbone, tokenizer)]
        what = f"quoted examples of WordNet, joined into {PASSAGES} passages"
        kind = "passage"
    else:
        texts = [as_text(backbone, tokenizer, line) for line in read_passages(file)]
        what, kind = f"the paragraphs of {file.name}", "paragraph"
    long = [text for text in texts if len(text.ids) >= LEAST]
    limit = min(_LONGEST, backbone.shape.n_positions or _LONGEST)
    notes = []
    if len(long) < len(texts):
        notes.append(f"left out: {counted(len(texts) - len(long), kind)} of fewer than {LEAST} tokens")
    if cut := sum(len(text.ids) == limit for text in long):
        notes.append(f"cut to {limit:,} tokens: {counted(cut, kind)}")
    return Passages(long, what, notes)


def _of_wordnet(backbone: Backbone, tokenizer: Any) -> list[str]:
    """Examples of 45 to 90 characters with at least eight words, at even distances, joined until they are long."""
    examples = wordnet_examples(PASSAGES * _EXAMPLES)
    lines = iter(line[0].upper() + line[1:].rstrip(".") + "." for line in examples)
    joined = []
    for _ in range(PASSAGES):
        passage: list[str] = []
        n_tokens = 0
        for line in lines:
            passage.append(line)
            n_tokens += len(tokenizer.encode(f" {line}", add_special_tokens=False))
            if n_tokens > _LENGTH:
                break
        joined.append(" ".join(passage))
    return joined
