"""What is read: fifteen prompts that were published with such figures, examples of WordNet, and lines of a file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from modulant.backbones.opening import Backbone
from probes.attention.lens import unigram_of
from probes.opening import special_ids

PROMPTS = (  # of which a model is sure, half sure, and unsure: five each
    "The capital of France is",
    "2 + 2 =",
    "The sun rises in the",
    "Water freezes at zero degrees",
    "The opposite of hot is",
    "The best way to learn is to",
    "I went to the store to buy",
    "She looked at him and",
    "The meeting was scheduled for",
    "He opened the door and",
    "The thing about life is",
    "In the distant future,",
    "Some people believe that",
    "The color of the sky reminded her of",
    "When considering the implications,",
)
EXAMPLES, IMAGES = 120, 16
_LONGEST = 512  # tokens; an eager layer takes heads × tokens² floats
_BATCH = 16
FIRST, SPECIAL, PUNCTUATION, WORD = range(4)


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts with as many tokens each, so that nothing is padded.

    Attributes:
        index: (B,) their places among all texts.
        inputs: (B, T) token ids, or pixels.
        kinds: (B, T) of each token `FIRST`, `SPECIAL`, `PUNCTUATION` or `WORD`; None of images.
        asked: (B,) place of the last word, for what fills masks; None where nothing does.
        masked: (B, T) the token ids with a mask in that place.
    """

    index: Tensor
    inputs: Tensor
    kinds: Tensor | None
    asked: Tensor | None = None
    masked: Tensor | None = None


def wordnet_examples(count: int = EXAMPLES) -> list[str]:
    """Quoted examples of 45 to 90 characters and at least eight words, every k-th so that `count` are left."""
    from modulant.lexicon import Lexicon

    found = [text for text in Lexicon.load().examples if 45 <= len(text) <= 90 and _words(text) >= 8]
    return found[:: len(found) // count][:count]


def _words(text: str) -> int:
    return sum(word[0].isalpha() for word in text.split())


def read_texts(file: Path) -> list[str]:
    """The lines of a file that are not blank.

    Raises:
        ValueError: it cannot be read, or has none.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"--texts: {file} cannot be read as text, one a line ({error})") from error
    if not (found := [line for line in lines if line]):
        raise ValueError(f"--texts: {file} has no line with text")
    return found


def shuffled(texts: Sequence[str], seed: int) -> list[str]:
    """Each text with its words in another order."""
    generator = torch.Generator().manual_seed(seed)
    split = [text.split() for text in texts]
    return [" ".join(words[i] for i in torch.randperm(len(words), generator=generator).tolist()) for words in split]


def batches_of(backbone: Backbone, tokenizer: Any, texts: Sequence[str]) -> list[Batch]:
    """The texts as the model reads them, with the special tokens that its tokenizer adds; the longest ones first.

    Raises:
        ValueError: a text has no token, or one that the model lacks.
    """
    limit = min(_LONGEST, backbone.shape.n_positions or _LONGEST)
    rows = [tokenizer.encode(text, truncation=True, max_length=limit) for text in texts]
    if not all(rows):
        raise ValueError(f"the tokenizer of {backbone.name!r} makes no token of {texts[rows.index([])]!r}")
    if (largest := max(max(row) for row in rows)) >= backbone.shape.vocab_size:
        raise ValueError(
            f"the tokenizer of {backbone.name!r} gives the token {largest}, and the model has "
            f"{backbone.shape.vocab_size:,}; it needs the tokenizer that it was trained with"
        )
    special = set(special_ids(tokenizer))
    found = []
    for length in sorted({len(row) for row in rows}, reverse=True):
        alike = [i for i, row in enumerate(rows) if len(row) == length]
        for some in _parts(alike):
            kinds = [_kinds(tokenizer, rows[i], special) for i in some]
            inputs = torch.tensor([rows[i] for i in some])
            masked = _masked(backbone, tokenizer, inputs, kinds)
            found.append(Batch(torch.tensor(some), inputs, torch.tensor(kinds), *masked))
    return found


def _masked(
    backbone: Backbone, tokenizer: Any, inputs: Tensor, kinds: Sequence[Sequence[int]]
) -> tuple[Tensor | None, Tensor | None]:
    """Where each text's last word is, and the inputs with a mask there; without a word, its last sign or token."""
    mask = tokenizer.mask_token_id
    if "masked_lm" not in backbone.family.heads or mask is None or mask >= backbone.shape.vocab_size:
        return None, None
    asked = torch.tensor([max((k == WORD, k == PUNCTUATION, i) for i, k in enumerate(row))[2] for row in kinds])
    return asked, inputs.scatter(1, asked[:, None], mask)


def unigrams(batches: Sequence[Batch], special: Sequence[int], vocab_size: int) -> Tensor:
    """(V,) log probabilities of the texts' tokens, special ones left out (`unigram_of`)."""
    counts = torch.zeros(vocab_size, dtype=torch.long)
    for batch in batches:
        counts += torch.bincount(batch.inputs.flatten(), minlength=vocab_size)
    counts[[i for i in special if i < vocab_size]] = 0
    return unigram_of(counts)


def images_of(backbone: Backbone, seed: int) -> list[Batch]:
    """Images of Gaussian noise."""
    config: Any = cast(Any, backbone.parts.stack).config
    side = config.image_size if isinstance(config.image_size, int) else config.image_size[0]
    pixels = torch.randn(IMAGES, config.num_channels, side, side, generator=torch.Generator().manual_seed(seed))
    return [Batch(torch.arange(IMAGES), pixels, None)]


def _parts(places: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(places), _BATCH):
        yield places[start : start + _BATCH]


def _kinds(tokenizer: Any, ids: Sequence[int], special: set[int]) -> list[int]:
    def kind(i: int) -> int:
        if i in special:
            return SPECIAL
        text = tokenizer.decode([i]).strip()
        return PUNCTUATION if text and not re.search(r"\w", text) else WORD

    return [FIRST, *map(kind, ids[1:])]


@dataclass(frozen=True, eq=False)
class Sets:
    """All that is read.

    Attributes:
        texts: what figures are of.
        prompts: the fifteen that were published with such figures.
        shuffled: the texts with their words in another order.
        shown: one text, whose whole attention is shown.
        what: a description.
        unigram: (V,) log probabilities of tokens in the texts; None of images.
    """

    texts: list[Batch]
    prompts: list[Batch]
    shuffled: list[Batch]
    shown: list[Batch]
    what: str
    unigram: Tensor | None = None


def sets_of(subject: Any, file: Path | None, prompt: str | None, seed: int, controls: bool) -> Sets:
    """The texts of a file, a prompt alone, or examples of WordNet; images of noise where images are read.

    Raises:
        ValueError: no text can be read, or texts are given to what reads images.
    """
    backbone, tokenizer = subject.backbone, subject.tokenizer
    if backbone.family.reads != "input_ids":
        if file is not None or prompt is not None:
            raise ValueError(f"{backbone.name!r} reads images; leave out {'--texts' if file else '--prompt'}")
        return Sets(images_of(backbone, seed), [], [], [], f"{IMAGES} images of Gaussian noise: patches are the tokens")

    def batches(texts: Sequence[str]) -> list[Batch]:
        return batches_of(backbone, tokenizer, texts)

    if prompt is not None:
        texts, what = [prompt], f"the prompt {prompt!r}"
    elif file is not None:
        texts = read_texts(file)
        what = f"{len(texts):,} lines of {file.name}"
    else:
        texts = wordnet_examples()
        what = f"{len(texts)} examples of WordNet"
    read = batches(texts)
    return Sets(
        texts=read,
        prompts=[] if prompt is not None else batches(PROMPTS),
        shuffled=batches(shuffled(texts, seed)) if controls else [],
        shown=batches([PROMPTS[0] if prompt is None else prompt]),
        what=what,
        unigram=unigrams(read, special_ids(tokenizer), backbone.shape.vocab_size),
    )
