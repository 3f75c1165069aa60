"""WordNet's hypernym graph, and path similarity with exactly NLTK's numbers.

Ancestors follow hypernyms and instance hypernyms. A node's distance to an ancestor is the shortest one. Where either of
two synsets is not a noun, NLTK lets both also reach a fake root, one step beyond the *largest* of their shortest
distances. The distance of two synsets is the smallest sum over what both reach, and

    path similarity = 1 / (1 + distance).
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy import sparse

UNREACHABLE = 255  # the distance of two synsets with no common ancestor (nouns of different roots, in some WordNets)

Rows = npt.NDArray[np.integer]


class Taxonomy:
    """Distances on the hypernym graph; synsets are rows of the lexicon.

    Raises:
        ValueError: the hypernyms go round in a circle.
    """

    def __init__(
        self,
        names: Sequence[str],
        pos: npt.NDArray[np.str_],
        hypernyms: npt.NDArray[np.int32],
        hypernym_starts: npt.NDArray[np.int64],
    ) -> None:
        self._names, self._noun = names, pos == "n"
        self._up, self._starts = hypernyms, hypernym_starts
        self._max_depth = self._longest_ways_up()

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._names)}

    def index(self, name: str) -> int:
        """The row of a synset's name.

        Raises:
            KeyError: WordNet has no such synset.

        >>> from lexicon import Lexicon
        >>> lexicon = Lexicon.load()
        >>> lexicon.names[lexicon.taxonomy.index("dog.n.01")]
        'dog.n.01'
        """
        try:
            return self._index[name]
        except KeyError:
            raise KeyError(f"no synset {name!r}; names look like 'dog.n.01'") from None

    @cached_property
    def ancestors(self) -> sparse.csr_array:
        """Shortest distance + 1 from each synset (row) to each of its ancestors and itself (columns)."""
        n = len(self._noun)
        step = sparse.csr_array((np.ones(len(self._up), np.int16), self._up, self._starts), shape=(n, n))
        reached = sparse.eye_array(n, dtype=np.int16, format="csr")
        frontier = reached
        distance = 1
        while frontier.nnz:
            distance += 1
            frontier = (frontier @ step).astype(bool).astype(np.int16)
            # Breadth first: a node keeps the distance at which it was first reached.
            fresh = frontier - frontier.multiply(reached.astype(bool).astype(np.int16))
            fresh.eliminate_zeros()
            reached = reached + fresh * distance
            frontier = fresh
        reached = sparse.csr_array(reached)
        reached.sort_indices()
        return reached

    @cached_property
    def _keys(self) -> npt.NDArray[np.int64]:
        """Every (synset, ancestor) of `ancestors` as one number, ascending."""
        table, n = self.ancestors, len(self._noun)
        return np.repeat(np.arange(n, dtype=np.int64), np.diff(table.indptr)) * n + table.indices

    @cached_property
    def _to_fake_root(self) -> npt.NDArray[np.int16]:
        """1 + the largest of a synset's shortest distances to its ancestors."""
        stored = self.ancestors
        return np.maximum.reduceat(stored.data, stored.indptr[:-1]).astype(np.int16)

    def path_distance(self, a: Rows, b: Rows) -> npt.NDArray[np.uint8]:
        """Distance of synsets ``a[i]`` and ``b[i]``, elementwise (broadcast); 255 where nothing joins them."""
        a, b = np.broadcast_arrays(self._checked(a), self._checked(b))
        shape, a, b = a.shape, a.reshape(-1), b.reshape(-1)
        table, n, keys = self.ancestors, len(self._noun), self._keys
        result = np.full(len(a), UNREACHABLE, dtype=np.int64)
        for start in range(0, len(a), 1 << 18):
            part = slice(start, start + (1 << 18))
            counts = np.diff(table.indptr)[a[part]]
            pair = np.repeat(np.arange(len(counts)), counts)
            first = np.repeat(table.indptr[a[part]] - (np.cumsum(counts) - counts), counts)
            entry = first + np.arange(len(pair))
            wanted = b[part][pair] * n + table.indices[entry]
            # Looking up b's distance to an ancestor of a is a binary search.
            found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            joined = keys[found] == wanted
            total = table.data[entry].astype(np.int64) + table.data[found] - 2
            np.minimum.at(result[part], pair[joined], total[joined])
        rooted = ~(self._noun[a] & self._noun[b])
        through_root = self._to_fake_root[a].astype(np.int64) + self._to_fake_root[b]
        result = np.where(rooted, np.minimum(result, through_root), result)
        result[a == b] = 0
        return result.astype(np.uint8).reshape(shape)

    def path_similarity(self, a: Rows, b: Rows) -> npt.NDArray[np.float64]:
        """NLTK's ``a.path_similarity(b)``, elementwise on rows (broadcast); NaN where NLTK says None.

        >>> from lexicon import Lexicon
        >>> taxonomy = Lexicon.load().taxonomy
        >>> float(taxonomy.path_similarity(taxonomy.index("dog.n.01"), taxonomy.index("cat.n.01")))
        0.2
        """
        return similarity_of_distance()[self.path_distance(np.asarray(a), np.asarray(b))]

    def path_distances(self, ids: Rows) -> npt.NDArray[np.uint8]:
        """Distances of all pairs of ``ids``, an (n, n) matrix of bytes; 255 where nothing joins two synsets.

        A dynamic programme down the hypernym graph: a node's row is the smaller of its own descendants' distances and
        1 + its hypernyms' rows, because a path over any ancestor leaves the node through one of its hypernyms.
        """
        ids = self._checked(ids).reshape(-1)
        distinct, position = np.unique(ids, return_inverse=True)
        columns = self.ancestors[distinct].tocsc()  # by ancestor: which of the ids lie below it, and how far
        nodes = np.flatnonzero(np.diff(columns.indptr))
        rows: dict[int, npt.NDArray[np.uint8]] = {}
        for node in nodes[np.argsort(self._max_depth[nodes], kind="stable")]:
            row = np.full(len(distinct), UNREACHABLE, dtype=np.uint8)
            for above in self._up[self._starts[node] : self._starts[node + 1]]:
                upper = rows[int(above)]
                np.minimum(row, upper + (upper != UNREACHABLE), out=row)
            below = slice(columns.indptr[node], columns.indptr[node + 1])
            own = columns.indices[below]
            row[own] = np.minimum(row[own], columns.data[below] - 1)
            rows[int(node)] = row
        matrix = np.stack([rows[int(node)] for node in distinct]) if len(distinct) else np.zeros((0, 0), np.uint8)
        noun, root = self._noun[distinct], self._to_fake_root[distinct]
        other = ~noun
        matrix[other] = np.minimum(matrix[other], root[other, None] + root[None, :])
        matrix[:, other] = np.minimum(matrix[:, other], root[:, None] + root[None, other])
        np.fill_diagonal(matrix, 0)
        if len(distinct) == len(ids) and np.array_equal(position, np.arange(len(ids))):
            return matrix
        return matrix[np.ix_(position, position)]

    def _longest_ways_up(self) -> npt.NDArray[np.int16]:
        """Longest way up from each synset to a root: hypernyms always have less."""
        depth = np.zeros(len(self._noun), dtype=np.int16)
        child = np.repeat(np.arange(len(self._noun)), np.diff(self._starts))
        for _ in range(UNREACHABLE):
            deeper = depth.copy()
            np.maximum.at(deeper, child, depth[self._up] + 1)
            if np.array_equal(deeper, depth):
                return depth
            depth = deeper
        raise ValueError(f"the hypernyms of this WordNet go round in a circle, or {UNREACHABLE} levels up")

    def _checked(self, rows: Rows) -> Rows:
        rows = np.asarray(rows)
        if rows.size and rows.dtype.kind not in "iu":
            raise ValueError(f"synset rows must be integers, got {rows.dtype}")
        if rows.size and (rows.min() < 0 or rows.max() >= len(self._noun)):
            raise ValueError(f"synset rows must lie in 0 … {len(self._noun) - 1}, got {rows.min()} … {rows.max()}")
        return rows.astype(np.int64)


def similarity_of_distance() -> npt.NDArray[np.float64]:
    """Path similarity of each possible byte of distance: 1 / (1 + d), NaN for unreachable."""
    similarity = 1.0 / (1.0 + np.arange(256, dtype=np.float64))
    similarity[UNREACHABLE] = np.nan
    return similarity
