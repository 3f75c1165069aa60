"""Human judgement: does an encoder agree with people about which words are similar, before and after a modulator?

The only figures here that WordNet did not write. WordNet gives each word its senses and their definitions, and nothing
of its hierarchy is used. Needs no Lightning: a callback, a probe and a library user call the same function.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from modulant.corpus.batching import sorted_batches
from modulant.corpus.entries import EVALUATION_BATCH
from modulant.corpus.forms import OF_T5, Hidden, SourceForm
from modulant.corpus.ragged import Ragged, padded_inputs
from modulant.corpus.word_pairs import SensePairs
from modulant.geometry import masked_mean
from modulant.metrics.functional.similarity import similarity_figures

Embed = Callable[[list[str]], Tensor]  # N definitions → (N, D)


def word_similarity(
    files: Sequence[SensePairs],
    before: Embed,
    after: Embed | None = None,
    trained: Collection[int] | None = None,
    replicates: int = 1000,
    seed: int = 42,
) -> dict[str, float]:
    """Spearman's ρ between people's ratings and an encoder's scores of word pairs.

    The score of a pair is the largest cosine over pairs of the two words' senses, each represented by its definition.
    Two words that share a sense score 1 whatever the encoder is.

    Args:
        files: pairs of words with their senses.
        before: definitions → representations by the original encoder.
        after: by the modulated one.
        trained: rows of the synsets whose definitions were trained on.
        replicates: of the bootstrap over pairs behind each 95% interval.
        seed: seed of the resampling.

    Returns:
        The figures of `similarity_figures`, behind each file's name; the same behind ``distinct/`` of pairs without a
        sense in common, and, with `trained`, behind ``untrained/`` of pairs without a trained sense. NaN where a
        figure is undefined.
    """
    row = {text: i for i, text in enumerate(dict.fromkeys(text for file in files for text in file.distinct_texts))}
    old, new = _units(before(list(row))), None if after is None else _units(after(list(row)))
    found: dict[str, float] = {}
    for file in files:
        first, second = _scores(file, row, old), None if new is None else _scores(file, row, new)
        parts = {"": np.ones(len(file), dtype=bool), "distinct/": ~file.shared}
        if trained is not None:
            parts["untrained/"] = file.untrained(trained)
        for part, chosen in parts.items():
            last = None if second is None else second[chosen]
            figures = similarity_figures(file.ratings[chosen], first[chosen], last, replicates, seed)
            found |= {f"{file.name}/{part}{key}": value for key, value in figures.items()}
    return found


def mean_embedding(
    hidden: Hidden,
    tokenizer: Any,
    device: torch.device | str = "cpu",
    form: SourceForm = OF_T5,
) -> Embed:
    """Definitions → means over unpadded tokens of an encoder's last hidden state, fp32, as a population's are.

    Args:
        hidden: the encoder's, of definitions; ``module.encode`` of a LightningModule, the base's inside
            ``handle.disabled()``.
        tokenizer: the encoder's.
        device: where `hidden` wants its inputs.
        form: how the encoder reads definitions.
    """

    @torch.no_grad()
    def embed(texts: list[str]) -> Tensor:
        tokens = Ragged.of(form.sources(tokenizer, texts))
        means: list[Tensor] = [torch.empty(0)] * len(texts)
        for rows in sorted_batches(tokens.lengths, EVALUATION_BATCH):
            inputs = padded_inputs(tokens.rows(rows), int(tokenizer.pad_token_id or 0))
            mask = inputs["attention_mask"].to(device)
            pooled = masked_mean(hidden(inputs["input_ids"].to(device), mask), mask).cpu()
            for i, mean in zip(rows.tolist(), pooled, strict=True):
                means[i] = mean
        return torch.stack(means)

    return embed


def _units(points: Tensor) -> npt.NDArray[np.float64]:
    unit: npt.NDArray[np.float64] = torch.nn.functional.normalize(points.double(), dim=-1).cpu().numpy()
    return unit


def _scores(file: SensePairs, row: dict[str, int], unit: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,): the largest cosine of each pair; of two words with a sense in common exactly 1, so that these are tied."""
    rows = ([[row[text] for text in senses] for senses in pair] for pair in file.texts)
    cosines = np.array([(unit[a] @ unit[b].T).max() for a, b in rows])
    return np.where(file.shared, 1.0, cosines)
