"""One vector per entry, gathered from all ranks: the mean over unpadded tokens of the encoder's last hidden state.

Each rank writes the rows of its own batches into zeros, so the sum over ranks is a gather, exact to the bit. An entry
that is counted twice, as by a sampler that pads, is an error.
"""

from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torchmetrics import Metric

from modulant.geometry import masked_mean


class EntryRepresentations(Metric):
    """Masked mean, in fp32, of the hidden states of each of a fixed number of entries.

    Args:
        n_entries: number of rows that must be written once each.
        dim: width of a hidden state.

    >>> metric = EntryRepresentations(n_entries=1, dim=2)
    >>> hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    >>> metric.update(torch.tensor([0]), hidden, torch.tensor([[1, 1, 0]]))
    >>> metric.compute()
    tensor([[2., 3.]])
    """

    full_state_update = False
    is_differentiable = False
    representations: Tensor  # (n_entries, dim)
    writes: Tensor  # (n_entries,)

    def __init__(self, n_entries: int, dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n_entries < 1 or dim < 1:
            raise ValueError(f"EntryRepresentations: n_entries is {n_entries} and dim {dim}; both must be at least 1")
        self.add_state("representations", torch.zeros(n_entries, dim), dist_reduce_fx="sum")
        self.add_state("writes", torch.zeros(n_entries, dtype=torch.long), dist_reduce_fx="sum")

    @torch.no_grad()
    def update(
        self,
        rows: Int[Tensor, "batch"],
        hidden: Float[Tensor, "batch tokens dim"],
        mask: Shaped[Tensor, "batch tokens"],
    ) -> None:
        """Writes mean_s(hidden[b, s] : mask[b, s] ≠ 0) to row rows[b]; an entry without a token becomes NaN."""
        rows, hidden, mask = (t.to(self.representations.device) for t in (rows, hidden, mask))
        means = masked_mean(hidden, mask)
        self.representations.index_add_(0, rows, means)
        self.writes.index_add_(0, rows, torch.ones_like(rows))

    def compute(self) -> Float[Tensor, "entries dim"]:
        """The representations of all entries.

        Raises:
            ValueError: a row was never written, or more than once, over all ranks.
        """
        if (self.writes != 1).any():
            missing, twice = int((self.writes == 0).sum()), int((self.writes > 1).sum())
            raise ValueError(
                f"EntryRepresentations: of {len(self.writes)} rows {missing} were never written and {twice} more than "
                "once; each entry must be in exactly one batch of one rank"
            )
        return self.representations
