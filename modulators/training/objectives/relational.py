r"""Train the relation itself: cosines of representations follow WordNet's similarity.

    L = − Σ_s w_s r_s(C, S) / Σ_s w_s + λ_task · cross-entropy + λ_keep · (1 − mean_i cos(z_i, z_i⁰))

C are the cosines of a batch's representations z, S WordNet's similarity of the same synsets, r_s Pearson's correlation
over the pairs of stratum s: all pairs, noun–noun, verb–verb. Over all pairs r is mostly part of speech, as path
similarity joins a noun and a verb by a fake root alone; only pairs of one part of speech can show hierarchy. z⁰ are the
frozen encoder's.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from modulant.geometry import weighted_pearson
from modulant.lexicon import Lexicon
from modulant.settings import NonNegativeFloat, Seed, checked
from modulators.arguments import check_relational
from modulators.training.objectives.base import Objective, Synsets, Term, TrainingBatch, to_device
from modulators.training.objectives.relations import Relation, Taxonomic, relation_of

STRATA = {"all": None, "nouns": "n", "verbs": "v"}  # name → part of speech of both ends; None: any


class RelationalObjective(Objective):
    """− Σ_s w_s · Pearson_s(cosines, similarity) / Σ_s w_s + task · cross-entropy + keep · (1 − mean cos(z, z⁰)).

    z is the mean over unpadded tokens of the encoder's last hidden state, s the strata of pairs, z⁰ the frozen
    encoder's z. A stratum without variance in a batch, of cosines or of similarities, is 0 there; one without variance
    among all training synsets is left out, and the others' weights count. Several processes gather z: they learn what
    one with the whole batch does.

    Args:
        relation: ``path``: 1 / (1 + shortest path); ``wup``: Wu–Palmer, the mean of both directions.
        all_pairs: weight of Pearson over all pairs of a batch.
        nouns: weight of Pearson over pairs of two nouns.
        verbs: weight of Pearson over pairs of two verbs.
        task: factor λ_task of the lemma's cross-entropy, in nats per token.
        keep: factor λ_keep of 1 − mean cosine between modulated and frozen representations.
        taxonomy: ``wordnet``, or a control: ``shuffled``, ``part_of_speech``, ``random``. Shuffled gives each training
            synset the place of another one, part of speech leaves each pair the mean similarity of its two parts of
            speech, random is drawn for each pair.
        seed: of the controls.

    Raises:
        ValueError: all weights are 0.
    """

    @checked
    def __init__(
        self,
        relation: Literal["path", "wup"] = "path",
        all_pairs: NonNegativeFloat = 1.0,
        nouns: NonNegativeFloat = 2.0,
        verbs: NonNegativeFloat = 1.0,
        task: NonNegativeFloat = 0.1,
        keep: NonNegativeFloat = 1.0,
        taxonomy: Taxonomic = "wordnet",
        seed: Seed = 42,
    ) -> None:
        check_relational(all_pairs, nouns, verbs, task)
        self.relation, self.taxonomy, self.seed = relation, taxonomy, seed
        self.weights = {"all": all_pairs, "nouns": nouns, "verbs": verbs}
        self.task, self.keep = task, keep
        self.needs_task, self.needs_base = task > 0, keep > 0
        self.needs_synsets = self.needs_base or any(self.weights.values())
        self._target: Relation | None = None
        self._part_of_speech = np.empty(0, dtype="U1")
        self._used: dict[str, float] = {}

    def prepare(self, lexicon: Lexicon, synsets: Synsets) -> list[str]:
        """Leaves out strata in which nothing varies, with a note for each.

        Raises:
            ValueError: none is left, and there is no other term.
        """
        self._target = relation_of(self.relation, self.taxonomy, lexicon, synsets, self.seed)
        self._part_of_speech = lexicon.pos
        wanted = [name for name, weight in self.weights.items() if weight]
        empty = {name: reason for name in wanted if (reason := self._empty(STRATA[name], lexicon, synsets))}
        self._used = {name: self.weights[name] for name in wanted if name not in empty}
        notes = [f"{name} pairs are left out of the objective: {reason}" for name, reason in empty.items()]
        if wanted and not self._used and not self.task:
            raise ValueError(f"no relation to train: {'; '.join(notes)}; set task above 0, or use another WordNet")
        return notes

    def _empty(self, kind: str | None, lexicon: Lexicon, synsets: Synsets) -> str:
        """Why no correlation over the pairs of a stratum is defined; "" where one is."""
        assert self._target is not None
        own = synsets if kind is None else synsets[lexicon.pos[synsets] == kind]
        if len(own) < 3:
            return f"there are {len(own)} such synsets to train on"
        some = own[:: max(1, len(own) // 512)]
        similarity = self._target(some)[np.triu_indices(len(some), 1)]
        similarity = similarity[np.isfinite(similarity)]
        if len(similarity) < 3 or np.ptp(similarity) == 0:
            return "their similarities do not differ"
        return ""

    def terms(self, batch: TrainingBatch) -> dict[str, Term]:
        found: dict[str, Term] = {}
        if self.needs_synsets:
            assert batch.representations is not None
            assert batch.synsets is not None
            z = F.normalize(batch.representations, dim=-1)
            found |= self._correlations(z, batch.synsets)
            if self.keep:
                assert batch.base is not None
                cosine = (z * F.normalize(batch.base, dim=-1)).sum(-1).mean()
                found["drift"] = Term(1 - cosine, self.keep)
        if self.task:
            assert batch.task_loss is not None
            found["task"] = Term(batch.task_loss, self.task)
        return found

    def _correlations(self, z: Float[Tensor, "batch dim"], synsets: Synsets) -> dict[str, Term]:
        assert self._target is not None, "prepare() comes first"
        sum_of_weights = sum(self._used.values())
        if not sum_of_weights:
            return {}
        cosines = z @ z.mT
        similarity = self._target(synsets).astype(np.float32)
        apart = ~np.eye(len(synsets), dtype=bool)
        found = {}
        for name, weight in self._used.items():
            kind = STRATA[name]
            one = np.ones(len(synsets), dtype=bool) if kind is None else self._part_of_speech[synsets] == kind
            pairs = apart & one[:, None] & one & np.isfinite(similarity)
            known = similarity[pairs]
            if known.size < 6 or np.ptp(known) == 0:  # each pair stands twice; two pairs always correlate
                value = 0.0 * cosines.sum()
            else:
                # Standardised on the host, in fp64, so that the device need not.
                centred = np.where(pairs, similarity - known.mean(dtype=np.float64), 0.0)
                given = to_device(np.stack([pairs, centred]).astype(np.float32), cosines.device)
                value = weighted_pearson(cosines, given[1], given[0])
            found[f"pearson_{name}"] = Term(value, -weight / sum_of_weights)
        return found

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "relation": self.relation,
            "weights": self.weights,
            "task": self.task,
            "keep": self.keep,
            "taxonomy": self.taxonomy,
        }
