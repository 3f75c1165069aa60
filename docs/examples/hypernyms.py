"""A user-supplied objective: a definition lies nearer to its hypernym's than to any other definition of the batch.

L = − mean over pairs (i, hypernym h of i in the batch) of log softmax_j(cos(z_i, z_j) / τ)[h],  j ≠ i

python probe.py contract docs/examples/hypernyms.py
python train.py fit --config lerp.yaml --config relational.yaml --trust docs/examples/hypernyms.py \
    --model.objective hypernyms.HypernymContrast --data.near_pairs 0.5
"""

import numpy as np
import torch
from torch.nn import functional as F

from modulant.lexicon import Lexicon
from modulators import Objective
from modulators.training.objectives.base import Synsets, Term, TrainingBatch, to_device


class HypernymContrast(Objective):
    """InfoNCE over pairs of a synset and its first hypernym; a batch without such a pair counts zero."""

    def __init__(self, temperature: float = 0.1) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        self.temperature = temperature

    def prepare(self, lexicon: Lexicon, synsets: Synsets) -> tuple[str, ...]:
        self._hypernym = np.full(len(lexicon), -1)
        self._hypernym[synsets] = lexicon.taxonomy.hypernym_chains(synsets, 1)[:, 0]
        return ()

    def terms(self, batch: TrainingBatch) -> dict[str, Term]:
        assert batch.representations is not None
        assert batch.synsets is not None
        z = F.normalize(batch.representations, dim=-1)
        below, above = np.nonzero(self._hypernym[batch.synsets][:, None] == batch.synsets)
        if len(below) == 0:
            return {"contrast": Term(0.0 * z.sum())}
        alone = torch.eye(len(z), dtype=torch.bool, device=z.device)
        scores = (z @ z.mT / self.temperature).masked_fill(alone, float("-inf"))
        below, above = to_device(below, z.device), to_device(above, z.device)
        return {"contrast": Term(F.cross_entropy(scores[below], above))}
