"""Which rows of two vocabularies belong together: by token, or by words that are one token in both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers.decoders import ByteLevel
from torch import Tensor

from modulant.backbones.weights import digest_of_weights
from probes.opening import open_subject, special_ids

_TINY = 1e-6  # of the median norm: a row below that is zero
_MARKED = 0.01  # of the tokens: fewer with a mark are no sign of one
ANCHORS, HELD_OUT = 10_000, 5_000  # at most; three quarters and one quarter where there are fewer
MORE = 10  # anchors beyond the dimensions of the smaller model


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two models.

    Attributes:
        name: as on the command line.
        embedding: input embeddings (V, D).
        tokenizer: of transformers.
        about: what the report says of it.
    """

    name: str
    embedding: Tensor
    tokenizer: Any
    about: Mapping[str, Any]

    @property
    def dim(self) -> int:
        return self.embedding.shape[1]


def open_side(name: str, device: str | None) -> Side:
    """Open a model and keep its vocabulary.

    Raises:
        ValueError: there is no such model or device, it reads images, or it has no tokenizer.
    """
    subject = open_subject(name, device)
    embedding = subject.embedding
    if embedding is None:
        raise ValueError(f"{name!r} reads images, and has no vocabulary")
    if subject.tokenizer is None:
        raise ValueError(f"{subject.no_tokenizer}; rows are matched by their tokens")
    model = subject.backbone.model
    about = {
        "name": name,
        "architecture": model.config.model_type,
        "rows": len(embedding),
        "dimensions": embedding.shape[1],
        "sha256": digest_of_weights(model.name_or_path),
    }
    return Side(name, embedding, subject.tokenizer, about)


@dataclass(frozen=True, eq=False)
class Matched:
    """Rows of both models that belong together, in random order, anchors first.

    Attributes:
        how: ``ids`` or ``words``.
        tokens: of each row, its text.
        ids: of each row, its numbers in the smaller and the larger vocabulary.
        small: (n, d), in fp64.
        large: (n, D), in fp64.
        anchors: number of rows that are fitted; the others are held out.
        shared: rows that could be matched.
        dropped: of these, rows of zeros or that are not finite.
    """

    how: str
    tokens: list[str]
    ids: list[tuple[int, int]]
    small: Tensor
    large: Tensor
    anchors: int
    shared: int
    dropped: int

    @property
    def held_out(self) -> int:
        return len(self.tokens) - self.anchors

    @property
    def population(self) -> str:
        return f"{self.held_out:,} held-out {self.noun}"

    @property
    def noun(self) -> str:
        return "words" if self.how == "words" else "tokens"


def match(small: Side, large: Side, how: str, seed: int) -> Matched:
    """Match the rows of two models, and divide them into anchors and held-out ones.

    Args:
        small: the model with fewer dimensions.
        large: the other.
        how: ``ids``, ``words``, or ``auto``: by ids where the vocabularies are equal.
        seed: of the order.

    Raises:
        ValueError: ids are asked for and the vocabularies differ, or too few rows are left.
    """
    vocabularies = [side.tokenizer.get_vocab() for side in (small, large)]
    equal = vocabularies[0] == vocabularies[1]
    if how == "ids" and not equal:
        raise ValueError(
            f"--match ids: the vocabularies of {small.name!r} and {large.name!r} differ; --match words compares the "
            "words that are one token in both"
        )
    if how == "ids" or (how == "auto" and equal):
        how, special = "ids", {*special_ids(small.tokenizer), *special_ids(large.tokenizer)}
        own = {token: i for token, i in vocabularies[0].items() if i not in special}
        texts = [own, own]
    else:
        how, texts = "words", [whole_words(side.tokenizer) for side in (small, large)]
    found = sorted(texts[0].keys() & texts[1].keys())
    rows = [(word, texts[0][word], texts[1][word]) for word in found]
    rows = [row for row in rows if row[1] < len(small.embedding) and row[2] < len(large.embedding)]
    usable = _usable(small, [row[1] for row in rows]) & _usable(large, [row[2] for row in rows])
    kept = [row for row, ok in zip(rows, usable.tolist(), strict=True) if ok]
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed)).tolist()
    anchors = min(ANCHORS, 3 * len(kept) // 4)
    held_out = min(HELD_OUT, len(kept) - anchors)
    if anchors < small.dim + MORE:
        raise ValueError(
            f"{small.name!r} and {large.name!r} share {len(kept):,} {how if how == 'words' else 'tokens'}, of which "
            f"{anchors:,} would be fitted; {small.dim} dimensions need at least {small.dim + MORE}"
        )
    chosen = [kept[i] for i in order[: anchors + held_out]]
    return Matched(
        how,
        [row[0] for row in chosen],
        [row[1:] for row in chosen],
        _rows(small, [row[1] for row in chosen]),
        _rows(large, [row[2] for row in chosen]),
        anchors,
        len(rows),
        len(rows) - len(kept),
    )


def whole_words(tokenizer: Any) -> dict[str, int]:
    """Words that are one token, by their text without marks: letters alone, at least two, none of them a capital.

    What says that a token begins a word is the mark that the vocabulary uses: SentencePiece ``▁`` and byte-level ``Ġ``
    in front, CLIP's ``</w>`` behind, or, of WordPiece, no ``##``. A vocabulary without marks holds words.
    """
    special = set(special_ids(tokenizer))
    vocabulary = {token: i for token, i in tokenizer.get_vocab().items() if i not in special}
    marks = {
        "▁": sum(token.startswith("▁") for token in vocabulary),
        "Ġ": sum(token.startswith("Ġ") for token in vocabulary),
        "##": sum(token.startswith("##") for token in vocabulary),
        "</w>": sum(token.endswith("</w>") for token in vocabulary),
    }
    mark = max(marks, key=lambda one: marks[one])
    if marks[mark] <= _MARKED * len(vocabulary):
        mark = ""
    decoder = ByteLevel()
    found = {}
    for token, i in vocabulary.items():
        if mark in ("▁", "Ġ") and token.startswith(mark):
            text = token[1:]
        elif mark == "</w>" and token.endswith(mark):
            text = token.removesuffix(mark)
        elif mark == "" or (mark == "##" and not token.startswith(mark)):
            text = token
        else:
            continue
        if mark in ("Ġ", "</w>"):  # its letters are bytes
            text = decoder.decode([text])
        if len(text) > 1 and text.isalpha() and text == text.lower():
            found[text] = i
    return found


def _usable(side: Side, ids: list[int]) -> Tensor:
    """Whether these rows are finite and not zero; on the CPU."""
    norms = side.embedding[torch.tensor(ids, dtype=torch.long, device=side.embedding.device)].double().norm(dim=1).cpu()
    finite = norms.isfinite()
    return finite & (norms > _TINY * norms[finite].median()) if finite.any() else finite


def _rows(side: Side, ids: list[int]) -> Tensor:
    return side.embedding[torch.tensor(ids, device=side.embedding.device)].double()
