"""EntryRepresentations against NumPy's means, and its refusal of rows that are missing or written twice."""

import numpy as np
import pytest
import torch

from modulant.metrics import EntryRepresentations


def test_rows_are_means_over_unpadded_tokens_whatever_the_order() -> None:
    lengths = [3, 1, 5, 2]
    texts = [torch.randn(n, 8, dtype=torch.bfloat16) for n in lengths]
    metric = EntryRepresentations(4, 8)
    for rows in ([2, 0], [1, 3]):
        hidden = torch.full((2, 6, 8), 7.0, dtype=torch.bfloat16)  # whatever stands in the padding
        mask = torch.zeros(2, 6, dtype=torch.long)
        for b, row in enumerate(rows):
            hidden[b, : lengths[row]] = texts[row]
            mask[b, : lengths[row]] = 1
        metric.update(torch.tensor(rows), hidden, mask)
    got = metric.compute()
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got, np.stack([t.float().numpy().mean(0) for t in texts]), rtol=1e-6, atol=1e-6)


def test_a_missing_or_doubled_row_is_an_error() -> None:
    metric = EntryRepresentations(3, 2)
    metric.update(torch.tensor([0, 0]), torch.randn(2, 4, 2), torch.ones(2, 4))
    with pytest.raises(ValueError, match="of 3 rows 2 were never written and 1 more than once"):
        metric.compute()
    with pytest.raises(ValueError, match="n_entries is 0"):
        EntryRepresentations(0, 2)
