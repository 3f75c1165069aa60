"""Hide tokens of texts, for the loss of a masked-language-model head."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from modulant.corpus.ragged import IntArray, pad


@dataclass(frozen=True)
class Masking:
    """BERT's scheme (Devlin et al. 2019): of the hidden tokens 80% are masked, 10% replaced, and 10% left as they are.

    Each token is hidden independently; special tokens never are.

    Attributes:
        share: of the tokens that is hidden.
        mask: id of the mask token.
        special: ids of special tokens.
        n_tokens: replacements are drawn from this many ids.
        pad: id of the pad token.
        seed: of the draws, with the members of a batch.
    """

    share: float
    mask: int
    special: npt.NDArray[np.int64]
    n_tokens: int
    pad: int
    seed: int

    @classmethod
    def of(cls, tokenizer: Any, share: float, seed: int) -> "Masking":
        """For a tokenizer.

        Raises:
            ValueError: it has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise ValueError(
                f"data.mask_share is {share:g}, and the tokenizer of {tokenizer.name_or_path} has no mask token; it "
                "must be null"
            )
        special = np.array(sorted(tokenizer.all_special_ids))
        return cls(share, int(tokenizer.mask_token_id), special, len(tokenizer), int(tokenizer.pad_token_id), seed)

    def batch(
        self, sources: Sequence[IntArray], members: IntArray, rank: int = 0, world: int = 1, multiple: int = 1
    ) -> dict[str, Any]:
        """Rank ``rank``'s share of a batch: every ``world``-th text, padded as `shared_batch` does.

        The draws are of the whole batch, and depend on the seed and its members alone: a batch that is made again, by
        however many processes, hides the same tokens.

        Returns:
            ``masked_ids`` (b, S); ``masked_at`` and ``masked_targets`` (hidden,): places among the b · S and what
            stood there; ``masked_weight``: world / (hidden tokens of the whole batch), 0 where there are none.
        """
        rng = np.random.default_rng(np.concatenate([[self.seed], members]))
        tokens = np.concatenate(sources)
        hidden = (rng.random(len(tokens)) < self.share) & ~np.isin(tokens, self.special)
        kind, drawn = rng.random(len(tokens)), rng.integers(self.n_tokens, size=len(tokens))
        given = np.where(hidden & (kind < 0.8), self.mask, tokens)
        given = np.where(hidden & (kind >= 0.9), drawn, given)
        ends = np.cumsum([len(row) for row in sources])[:-1]
        rows, flags = np.split(given, ends), np.split(hidden, ends)
        own = slice(rank, None, world)
        shown = rows[own] or rows[:1]  # a rank without a text has one that does not count
        ids = pad(shown, self.pad, multiple)
        starts = np.arange(len(rows[own])) * ids.shape[1]
        at = [start + np.flatnonzero(row) for start, row in zip(starts, flags[own], strict=True)]
        targets = [row[flag] for row, flag in zip(sources[own], flags[own], strict=True)]
        nothing = np.zeros(0, dtype=np.int64)
        return {
            "masked_ids": ids,
            "masked_at": torch.from_numpy(np.concatenate([nothing, *at])),
            "masked_targets": torch.from_numpy(np.concatenate([nothing, *targets]).astype(np.int64)),
            "masked_weight": world / int(hidden.sum()) if hidden.any() else 0.0,
        }
