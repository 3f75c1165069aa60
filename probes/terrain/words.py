"""Order and category in an embedding matrix: digits, letters, months, and lists of words of one kind.

Each list is measured on words that are one token each. Pairs that share a word are not independent, so every null
permutes words, not pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from modulant.geometry import cosine_moments, mantel, weighted_pearson
from modulant.metrics.functional.bootstrap import synset_weights
from probes.findings import Findings, Null

ORDERED = {
    "digits": "0 1 2 3 4 5 6 7 8 9",
    "letters": "a b c d e f g h i j",
    "letters_upper": "A B C D E F G H I J",
    "letters_k_t": "k l m n o p q r s t",
    "number_words": "zero one two three four five six seven eight nine",
    "months": "January February March April May June July August September October November December",
}
# "fish" stood in two lists, and is in neither.
CATEGORIES = {
    "animals": "cat dog bird horse mouse bear wolf deer fox lion tiger snake whale frog rabbit monkey elephant",
    "colors": "red blue green yellow black white orange purple brown pink",
    "numbers": "one two three four five six seven eight nine ten",
    "body": "head hand eye foot arm leg face mouth heart brain",
    "food": "bread meat rice milk salt sugar cheese fruit water",
    "emotions": "happy sad angry fear love hate joy hope pain calm",
    "actions": "run walk jump fly swim eat sleep talk think write",
    "time": "day night year month week hour morning evening today tomorrow",
}
_LEAST = 3  # words of a category
_PERMUTATIONS, _ORDERS, _RESAMPLES = 19_999, 999, 1000
PERMUTED = "items permuted (Mantel)"
_CATEGORY_NAMES = ("gap", "gap_low", "gap_high", "z", "p", "words", "centroid_cosine", "centroid_p")
_NAMES = ("r", "r_low", "r_high", "p", "null_sd", "adjacent_gap", "partial_r", "partial_p", "r_token_id")


class Tokens(NamedTuple):
    """Words that are one token each.

    Attributes:
        words: as they were given.
        ids: their tokens.
        form: how they were written: ``plain``, or ``spaced`` with a space before.
        pieces: of each word that is not a single token, its pieces.
    """

    words: list[str]
    ids: list[int]
    form: str
    pieces: dict[str, list[str]]


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Embedding matrix and tokenizer.

    Attributes:
        embedding: (V, D).
        tokenizer: of transformers.
    """

    embedding: Tensor
    tokenizer: Any

    def single(self, words: Sequence[str], form: str | None = None) -> Tokens:
        """The words that are one token each, in the form in which more of them are; with a space if as many.

        A byte-level tokenizer has one token for ``cat`` inside of a word and another for ``␣cat``; others have one.
        """
        forms = [self._in_form(words, one) for one in (("spaced", "plain") if form is None else (form,))]
        return max(forms, key=lambda tokens: len(tokens.ids))

    def unit(self, ids: Sequence[int]) -> Tensor:
        """(n, D) rows of length 1, in fp64 on the CPU."""
        return F.normalize(self.rows(ids), dim=-1)

    def rows(self, ids: Sequence[int]) -> Tensor:
        """(n, D) rows, in fp64 on the CPU."""
        return self.embedding[torch.tensor(ids, device=self.embedding.device)].double().cpu()

    def _in_form(self, words: Sequence[str], form: str) -> Tokens:
        found, ids, pieces = [], [], {}
        for word in words:
            text = f" {word}" if form == "spaced" else word
            own = self.tokenizer.encode(text, add_special_tokens=False)
            usable = len(own) == 1 and own[0] != self.tokenizer.unk_token_id and own[0] < len(self.embedding)
            if usable and own[0] not in ids:
                found.append(word)
                ids.append(own[0])
            else:
                pieces[word] = self.tokenizer.convert_ids_to_tokens(own)
        return Tokens(found, ids, form, pieces)


def measure_order(vocabulary: Vocabulary, found: Findings, seed: int) -> dict[str, Any]:
    """Does the cosine of two items of a list fall with their distance in it? ``digits/…``, ``letters/…``, ….

    Every word of a list must be a token of its own, or nothing of the list is measured. Letters are a control of
    digits, and are read in the form that digits have. Returns curves: list → mean cosine at each distance, form and
    tokens.
    """
    curves = {}
    form = vocabulary.single(ORDERED["digits"].split()).form
    for name, text in ORDERED.items():
        words = text.split()
        tokens = vocabulary.single(words, form if name.startswith("letters") else None)
        if tokens.pieces:
            said = "; ".join(f"{word} = {' '.join(pieces)}" for word, pieces in list(tokens.pieces.items())[:4])
            found.leave_out(name, _NAMES, f"not a single token each, or the same one ({said})")
            continue
        curves[name] = _order(vocabulary, found, name, tokens, seed)
        other = vocabulary.single(words, "plain")
        if name == "digits" and not other.pieces and other.ids != tokens.ids:
            curves["digits_plain"] = _order(vocabulary, found, "digits_plain", other, seed)
    return curves


def _order(vocabulary: Vocabulary, found: Findings, name: str, tokens: Tokens, seed: int) -> dict[str, Any]:
    n = len(tokens.ids)
    population = f"{n * (n - 1) // 2} pairs of {n}"
    unit, norms = vocabulary.unit(tokens.ids), vocabulary.rows(tokens.ids).norm(dim=1)
    cosines = unit @ unit.mT
    place = torch.arange(n, dtype=torch.float64)
    apart = (place[:, None] - place).abs()
    plain = mantel(apart, cosines, _PERMUTATIONS, seed)
    null = Null(PERMUTED, [0.0]).as_json() | {"sd": plain.null_sd, "n": _PERMUTATIONS}
    found.add(f"{name}/r", plain.r, population)
    found.add(f"{name}/p", plain.p, f"{_PERMUTATIONS:,} permutations")
    found.add(f"{name}/null_sd", plain.null_sd, f"{_PERMUTATIONS:,} permutations")
    found.nulls[f"{name}/r"] = null
    found.add_interval(f"{name}/r", _resampled_r(apart, cosines, seed), f"{_RESAMPLES:,} resamples of {n} items")
    beside = (apart == 1).triu()
    others = (apart > 1).triu()
    gap = float(cosines[beside].mean() - cosines[others].mean())
    found.add(f"{name}/adjacent_gap", gap, population, null=Null(PERMUTED, [0.0]))
    # Lengths differ with the digit, and a model may order its rows by length alone.
    lengths = (norms[:, None] - norms).abs()
    partial = mantel(apart, cosines, _PERMUTATIONS, seed, given=lengths)
    found.add(f"{name}/partial_r", partial.r, population, null=Null(f"{PERMUTED}, given |Δ norm|", [0.0]))
    found.add(f"{name}/partial_p", partial.p, f"{_PERMUTATIONS:,} permutations")
    ids = torch.tensor(tokens.ids, dtype=torch.float64)
    by_id = mantel((ids[:, None] - ids).abs(), cosines, 1, seed)
    found.add(f"{name}/r_token_id", by_id.r, population)
    if name == "months":
        cyclic = mantel(torch.minimum(apart, n - apart), cosines, _PERMUTATIONS, seed)
        found.add("months/cyclic_r", cyclic.r, population, null=Null(PERMUTED, [0.0]))
        found.add("months/cyclic_p", cyclic.p, f"{_PERMUTATIONS:,} permutations")
    means = [float(cosines[(apart == distance).triu()].mean()) for distance in range(1, n)]
    return {"form": tokens.form, "ids": tokens.ids, "cosine_by_distance": means, "r": plain.r, "p": plain.p}


def _resampled_r(apart: Tensor, cosines: Tensor, seed: int) -> list[float]:
    """Pearson's r with the items drawn with replacement; an item and its copy are no pair."""
    n = len(apart)
    i, j = torch.triu_indices(n, n, 1)
    counts = synset_weights(torch.zeros(n), _RESAMPLES, seed).double()
    return [float(weighted_pearson(cosines[i, j], apart[i, j], drawn[i] * drawn[j])) for drawn in counts]


def measure_categories(
    vocabulary: Vocabulary, found: Findings, seed: int, centre: Tensor | None = None
) -> dict[str, list[str]]:
    """Are words of one list nearer to each other than to those of the others? ``categories/…``.

    Null: the lists permuted over the same words, which are all frequent; a gap to random tokens would be partly one of
    frequency, and is printed as ``source/categories/lift`` alone. Returns the words by list.

    Args:
        vocabulary: embedding and tokenizer.
        found: where the figures go.
        seed: of permutations and resamples.
        centre: (D,) mean of the vocabulary, that is taken away from the lists' means; None: of the whole matrix.
    """
    form = vocabulary.single(" ".join(CATEGORIES.values()).split()).form
    lists = {name: vocabulary.single(text.split(), form) for name, text in CATEGORIES.items()}
    lists = {name: tokens for name, tokens in lists.items() if len(tokens.ids) >= _LEAST}
    if len(lists) < 2:
        why = f"fewer than two lists have {_LEAST} words of one token each"
        found.leave_out("categories", _CATEGORY_NAMES, why)
        return {}
    rows = vocabulary.rows([i for tokens in lists.values() for i in tokens.ids])
    unit = F.normalize(rows, dim=-1)
    cosines, n = unit @ unit.mT, len(unit)
    label = torch.cat([torch.full((len(tokens.ids),), i) for i, tokens in enumerate(lists.values())])
    generator = torch.Generator().manual_seed(seed)
    gap, null = (
        _gap(cosines, label),
        [_gap(cosines, label[torch.randperm(n, generator=generator)]) for _ in range(_ORDERS)],
    )
    drawn = Null(f"lists permuted over the same {n} words", null)
    population = f"{n * (n - 1) // 2:,} pairs of {n} words in {len(lists)} lists"
    found.add("categories/gap", gap, population, null=drawn)
    spread = drawn.as_json()
    found.add("categories/z", (gap - spread["mean"]) / spread["sd"] if spread["sd"] else torch.nan, population)
    found.add("categories/p", _p(gap, null), f"{_ORDERS} permutations")
    resampled = _resampled_gap(cosines, label, seed)
    found.add_interval("categories/gap", resampled, f"{_RESAMPLES:,} resamples of the words of each list")
    if centre is None:
        centre = vocabulary.embedding.double().mean(0)
    away = rows - centre.cpu()
    means = _mean_cosine_of_means(away, label)
    orders = (torch.randperm(n, generator=generator) for _ in range(_ORDERS))
    null = [_mean_cosine_of_means(away, label[order]) for order in orders]
    drawn = Null(f"lists permuted over the same {n} words", null)
    pairs = f"{len(lists) * (len(lists) - 1) // 2} pairs of lists' means, without the vocabulary's"
    found.add("categories/centroid_cosine", means, pairs, null=drawn)
    p = _p(means - drawn.mean, [value - drawn.mean for value in null])
    found.add("categories/centroid_p", p, f"{_ORDERS} permutations")
    found.add("categories/words", n, "words")
    for i, name in enumerate(lists):
        own = label == i
        inside = cosines[own][:, own]
        count = int(own.sum())
        value = float((inside.sum() - inside.trace()) / (count * (count - 1)) - cosines[own][:, ~own].mean())
        found.add(f"categories/{name}/gap", value, f"{count} words")
    sample = torch.randperm(len(vocabulary.embedding), generator=generator)[:1000]
    others = vocabulary.unit(sample.tolist())
    background = cosine_moments(others).mean
    same = (label[:, None] == label).triu(1)
    found.add("source/categories/lift", float(cosines[same].mean()) - background, f"{len(others):,} random rows")
    return {name: tokens.words for name, tokens in lists.items()}


def _gap(cosines: Tensor, label: Tensor) -> float:
    """Mean cosine of pairs within a list minus that of pairs between lists."""
    same, upper = label[:, None] == label, torch.ones_like(cosines, dtype=torch.bool).triu(1)
    return float(cosines[same & upper].mean() - cosines[~same & upper].mean())


def _resampled_gap(cosines: Tensor, label: Tensor, seed: int) -> list[float]:
    """The same with the words of each list drawn with replacement; a word and its copy are no pair."""
    counts = synset_weights(label, _RESAMPLES, seed).double()
    upper = torch.ones_like(cosines).triu(1)

    def mean(pairs: Tensor) -> Tensor:
        kept = pairs * upper
        return ((counts @ (kept * cosines)) * counts).sum(1) / ((counts @ kept) * counts).sum(1)

    same = (label[:, None] == label).double()
    found: list[float] = (mean(same) - mean(1 - same)).tolist()
    return found


def _mean_cosine_of_means(points: Tensor, label: Tensor) -> float:
    """Mean cosine of the means of two lists, over all pairs of lists."""
    means = torch.stack([points[label == i].mean(0) for i in range(int(label.max()) + 1)])
    return cosine_moments(means).mean


def _p(value: float, null: Sequence[float]) -> float:
    """Two-sided, of permutations."""
    return (1 + sum(abs(one) >= abs(value) - 1e-12 for one in null)) / (len(null) + 1)
