"""A matrix in column blocks is the matrix, and what is held at a time stays within what was allowed."""

import tracemalloc
from itertools import islice

import numpy as np
import pytest

from modulant.lexicon import Lexicon

MEGABYTE = 1 << 20


def test_blocks_are_the_matrix(lexicon: Lexicon) -> None:
    taxonomy = lexicon.taxonomy
    ids = np.random.default_rng(0).choice(len(lexicon), 2000)  # with duplicates, in no order
    for blocks, whole in (
        (taxonomy.path_blocks(ids, 5 * MEGABYTE), taxonomy.path_distances(ids)),
        (taxonomy.wup_blocks(ids, 20 * MEGABYTE), taxonomy.wup_matrix(ids)),
        (taxonomy.wup_blocks(ids, 20 * MEGABYTE, np.float32), taxonomy.wup_matrix(ids, np.float32)),
    ):
        columns, parts = zip(*blocks, strict=True)
        assert len(parts) >= 3
        assert columns[0].start == 0
        assert all(a.stop == b.start for a, b in zip(columns[:-1], columns[1:], strict=True))
        assert columns[-1].stop == len(ids)
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)


def test_every_noun_streams_within_its_bound(lexicon: Lexicon) -> None:
    """A part of the 82,115² matrix: 6.7 GB of bytes, 54 GB of float64."""
    taxonomy, nouns = lexicon.taxonomy, np.flatnonzero(lexicon.pos == "n")
    taxonomy.wup_similarity(nouns[0], nouns[1])  # the graph's own tables are made
    rng = np.random.default_rng(0)
    for stream, bound in ((taxonomy.path_blocks, 64 * MEGABYTE), (taxonomy.wup_blocks, 192 * MEGABYTE)):
        for columns, block in islice(stream(nouns, bound), 2):
            assert block.shape == (len(nouns), columns.stop - columns.start)
            rows = rng.integers(len(nouns), size=2000)
            ask = taxonomy.path_distance if stream == taxonomy.path_blocks else taxonomy.wup_similarity
            np.testing.assert_array_equal(block[rows], ask(nouns[rows, None], nouns[columns]))
        tracemalloc.start()
        for _, block in islice(stream(nouns, bound), 3):
            assert len(block) == len(nouns)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 0.3 * bound < peak < bound + 5 * MEGABYTE  # sorting the nodes takes some more, for a moment


def test_too_little_for_a_column(lexicon: Lexicon) -> None:
    for stream in (lexicon.taxonomy.path_blocks, lexicon.taxonomy.wup_blocks):
        with pytest.raises(ValueError, match=r"max_bytes is 1000; 100 synsets need \d+ or more"):
            stream(np.arange(100), 1000)
    with pytest.raises(ValueError, match="dtype is int64; similarities are float32 or float64"):
        lexicon.taxonomy.wup_matrix(np.arange(3), np.int64)
