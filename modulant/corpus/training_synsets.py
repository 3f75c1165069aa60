"""The synsets that a training on relations may use: each once, with its neighbours among them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from modulant.corpus.batching import sorted_batches
from modulant.corpus.entries import EVALUATION_BATCH, Corpus
from modulant.corpus.population import EvaluationBatch
from modulant.corpus.ragged import Ragged, padded_inputs
from modulant.lexicon import Lexicon


@dataclass(frozen=True, eq=False)
class TrainingSynsets:
    """The distinct synsets of the training entries, without those that a held-out entry uses too.

    Attributes:
        synsets: (n,) rows of the lexicon, ascending.
        entries: flat positions among the training entries, by synset.
        starts: (n + 1,) where each synset's entries begin.
        sources: tokenised source text of each synset.
        edges: (edges, 2) pairs of a synset and a hypernym of it, as positions here.
    """

    synsets: npt.NDArray[np.int64]
    entries: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sources: Ragged
    edges: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.synsets)

    @classmethod
    def of(cls, corpus: Corpus) -> "TrainingSynsets":
        """Those of a corpus."""
        of_entry = corpus.entries.synset.astype(np.int64)
        own = of_entry[corpus.trained]
        usable = np.flatnonzero(~np.isin(own, of_entry[corpus.held_out]))
        usable = usable[np.argsort(own[usable], kind="stable")]
        synsets, first = np.unique(own[usable], return_index=True)
        return cls(
            synsets,
            usable,
            np.append(first, len(usable)),
            corpus.sources.take(corpus.trained[usable[first]]),
            hypernym_edges(corpus.lexicon, synsets),
        )

    def drawn_entries(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """One entry of each synset, by a seeded draw, as positions among the training entries."""
        rng = np.random.default_rng((seed, epoch, 1))
        return self.entries[self.starts[:-1] + rng.integers(np.diff(self.starts))]

    def batches(self, pad_id: int) -> list[EvaluationBatch]:
        """(rows, input ids, attention mask) of all of them, sorted by length; the same on every process."""
        found = []
        for rows in sorted_batches(self.sources.lengths, EVALUATION_BATCH):
            inputs = padded_inputs(self.sources.rows(rows), pad_id)
            found.append((torch.from_numpy(rows), inputs["input_ids"], inputs["attention_mask"]))
        return found


def hypernym_edges(lexicon: Lexicon, synsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pairs (synset, hypernym of it) among some synsets, as positions in them, (edges, 2); in a fixed order."""
    place = np.full(len(lexicon), -1)
    place[synsets] = np.arange(len(synsets))
    below = np.repeat(np.arange(len(lexicon)), np.diff(lexicon.hypernym_starts))
    edges = np.stack([place[below], place[lexicon.hypernyms]], axis=1)
    return edges[(edges >= 0).all(1)]
