"""Batches: how many of their tokens are real, and how many shapes they have.

*Real tokens*: the share of an epoch's padded tokens that are no padding, of sources (what the encoder computes),
targets (decoder and vocabulary) and both, the lowest of some epochs; beside it the same of random batches. *Shapes*:
how many different (examples, source, target) an epoch has, which is what a static compiler or CUDA graphs have to
prepare for, and the real tokens of both.
*Time*: forward and backward of the batches of an epoch. Packing several examples into a row was measured too, and
does not pay on a CPU: docs/results/costs.md.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.harness import Row, backbone, interleaved, milliseconds, ratio
from datamodules import WordNetDataModule
from modulant.corpus.batching import epoch_batches
from modulant.corpus.ragged import IntArray, Ragged, training_batch
from modulators import FieldModulator, attach, stream_of
from modulators.training.masks import prepared_mask

ASKED = 0.90

ABOUT = """\
Share of real tokens (not padding) in a batch, and how many shapes an epoch has.

Over all of WordNet the targets have 2 to 16 tokens, and sorting by sources alone leaves more than half of the \
decoder's tokens padding. So batches are alike in both lengths. Single tokens have targets of one length."""


class Epoch(NamedTuple):
    """An epoch's batches."""

    sources: IntArray
    targets: IntArray
    batches: list[IntArray]

    def tokens(self, multiple: int = 1) -> tuple[int, int]:
        """Padded tokens of sources and targets."""
        sizes = [self._shape(batch, multiple) for batch in self.batches]
        return sum(n * source for n, source, _ in sizes), sum(n * target for n, _, target in sizes)

    def shares(self, multiple: int = 1) -> tuple[float, float, float]:
        """Real tokens of sources, targets and both."""
        source, target = self.tokens(multiple)
        real = int(self.sources.sum()), int(self.targets.sum())
        return real[0] / source, real[1] / target, sum(real) / (source + target)

    def shapes(self, multiple: int = 1) -> int:
        return len({self._shape(batch, multiple) for batch in self.batches})

    def _shape(self, batch: IntArray, multiple: int) -> tuple[int, int, int]:
        up = [-(-int(lengths[batch].max()) // multiple) * multiple for lengths in (self.sources, self.targets)]
        return len(batch), up[0], up[1]


def epoch_of(data: WordNetDataModule, batch_size: int, epoch: int, way: str = "ours") -> Epoch:
    corpus = data.corpus
    sources, targets = (texts.lengths[corpus.trained] for texts in (corpus.sources, corpus.targets))
    if way == "random":
        order = np.random.default_rng(epoch).permutation(len(sources))
        return Epoch(sources, targets, [order[i : i + batch_size] for i in range(0, len(order), batch_size)])
    both = targets if way == "ours" else None
    return Epoch(sources, targets, epoch_batches(sources, batch_size, data.seed, epoch, both))


def real_tokens(data: WordNetDataModule, batch_size: int, epochs: int) -> list[Row]:
    """The lowest shares of some epochs; asked is asked of both."""
    epochs_drawn = [epoch_of(data, batch_size, epoch) for epoch in range(epochs)]
    ours = [min(shares) for shares in zip(*(one.shares() for one in epochs_drawn), strict=True)]
    plain = epoch_of(data, batch_size, 0, "random").shares()
    where = f"{data.matching}, batch {batch_size}"
    rows = [
        {"what": f"real tokens, {name}: {where}", "ours": f"{mine:.3f}", "plain": f"{theirs:.3f}"}
        for name, mine, theirs in zip(("sources", "targets", "both"), ours, plain, strict=True)
    ]
    met = "" if ours[2] >= ASKED else ", not met"
    rows[2]["asked"] = f"≥ {ASKED:.2f}{met}"
    for multiple in (1, 4, 8):
        share = min(one.shares(multiple)[2] for one in epochs_drawn)
        rounded = f", lengths rounded up to {multiple}" if multiple > 1 else ""
        shapes = f"{epochs_drawn[0].shapes(multiple)}, {share:.3f} real"
        rows.append({"what": f"shapes of an epoch: {where}{rounded}", "ours": shapes})
    return rows


def padded_loss(model: Any, sources: Ragged, targets: Ragged, rows: IntArray) -> torch.Tensor:
    batch = training_batch(sources.rows(rows), targets.rows(rows), model.config.pad_token_id)
    mask = prepared_mask(model.config, batch["attention_mask"], batch["padded"])
    loss: torch.Tensor = model(
        input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"], use_cache=False
    ).loss
    return loss


def time_of_batches(data: WordNetDataModule, batch_size: int, batches: int, turns: int) -> list[Row]:
    """Seconds an example, over the first batches of an epoch, which come in random order."""
    corpus = data.corpus
    sources, targets = corpus.sources.take(corpus.trained), corpus.targets.take(corpus.trained)
    model = backbone("mini")
    modulator = FieldModulator(stream_of(model.config))
    attach(model, modulator)

    def over(way: str) -> Callable[[], None]:
        some = epoch_of(data, batch_size, 0, way).batches[:batches]

        def learn() -> None:
            for rows in some:
                padded_loss(model, sources, targets, rows).backward()
            modulator.zero_grad()

        return learn

    ways = ("ours", "sources alone", "random")
    seconds = interleaved({way: over(way) for way in ways}, turns)
    per_example = {way: [s / batches / batch_size for s in seconds[way]] for way in ways}
    return [
        {
            "what": f"forward and backward an example, mini, field, {data.matching}, batch {batch_size}: against {way}",
            "ours": milliseconds(per_example["ours"]),
            "plain": milliseconds(per_example[way]),
            "ratio": str(ratio(seconds["ours"], seconds[way])),
        }
        for way in ways[1:]
    ]


def run(quick: bool = False) -> list[Row]:
    """Rows of the table; `ratio` is ours / plain."""
    single = WordNetDataModule()
    single.setup("fit")
    rows = [row for size in (32, 64) for row in real_tokens(single, size, 2 if quick else 10)]
    if not quick:
        every = WordNetDataModule(matching="all")
        every.setup("fit")
        rows += real_tokens(every, 64, 3) + time_of_batches(every, 64, batches=8, turns=5)
    return rows
