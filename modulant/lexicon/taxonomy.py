"""WordNet's hypernym graph, and path and Wu–Palmer similarity with exactly NLTK's numbers.

Ancestors follow hypernyms and instance hypernyms. A node's distance to an ancestor is the shortest one. Where either of
two synsets is not a noun, NLTK lets both also reach a fake root, one step beyond the *largest* of their shortest
distances. The distance of two synsets is the smallest sum over what both reach, and

    path similarity = 1 / (1 + distance).

Their subsumer is the common ancestor of the largest min_depth (the fake root's is 0); of several, the first synset
itself if it is one of them, else the smallest name. With depth = 1 + the subsumer's max_depth,

    Wu–Palmer similarity = 2 depth / (distance(first, subsumer) + distance(second, subsumer) + 2 depth),

which is not symmetric where a tie is the first synset's own, nor always 1 between a synset and itself.
"""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from modulant.lexicon.blocks import MAX_BYTES, Blocks

if TYPE_CHECKING:
    from modulant.lexicon.sweeps import Ancestors, Graph, Ranks, Sweep

UNREACHABLE = 255  # the distance of two synsets with no common ancestor (nouns of different roots, in some WordNets)
_MAX_DEPTH = 60  # Princeton's has 19 levels; distances of twice as many are told apart in a byte

Rows = npt.NDArray[np.integer]
Float = TypeVar("Float", np.float32, np.float64)


class Taxonomy:
    """Relations on the hypernym graph; synsets are rows of the lexicon.

    Raises:
        ValueError: the hypernyms have a cycle, or lead from a noun to another part of speech.
    """

    max_depth: npt.NDArray[np.int16]  # the longest way up from each synset to a root
    min_depth: npt.NDArray[np.int16]  # and the shortest

    def __init__(
        self,
        names: Sequence[str],
        pos: npt.NDArray[np.str_],
        hypernyms: npt.NDArray[np.int32],
        hypernym_starts: npt.NDArray[np.int64],
    ) -> None:
        self._names, self._noun = names, pos == "n"
        self._up, self._starts = hypernyms, hypernym_starts
        child = np.repeat(np.arange(len(pos)), np.diff(hypernym_starts))
        if (mixed := np.flatnonzero(self._noun[child] != self._noun[hypernyms])).size:
            lower, upper = names[int(child[mixed[0]])], names[int(hypernyms[mixed[0]])]
            raise ValueError(f"{upper} is a hypernym of {lower}: nouns and other parts of speech cannot mix")
        self.max_depth = _depths(child, hypernyms, len(pos), np.maximum)
        self.min_depth = _depths(child, hypernyms, len(pos), np.minimum)

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self._names)}

    def index(self, name: str) -> int:
        """The row of a synset's name.

        Raises:
            KeyError: WordNet has no such synset.

        >>> from modulant.lexicon import Lexicon
        >>> lexicon = Lexicon.load()
        >>> lexicon.names[lexicon.taxonomy.index("dog.n.01")]
        'dog.n.01'
        """
        try:
            return self._index[name]
        except KeyError:
            alike = [other for other in self._index if other[:1] == str(name)[:1]]
            near = [other for other in alike if other.startswith(f"{name}.")] or get_close_matches(str(name), alike)
            hint = f"; near it: {', '.join(near[:3])}" if near else ""
            raise KeyError(f"no synset {name!r}; names look like 'dog.n.01'{hint}") from None

    @cached_property
    def _graph(self) -> "Graph":
        from modulant.lexicon.sweeps import Graph

        return Graph(np.ascontiguousarray(self._up, np.int32), np.ascontiguousarray(self._starts, np.int64))

    @cached_property
    def _ancestors(self) -> "Ancestors":
        from modulant.lexicon.sweeps import all_ancestors

        return all_ancestors(self._graph, ~self._noun)

    @cached_property
    def _ranks(self) -> "Ranks":
        from modulant.lexicon.sweeps import Ranks

        n = len(self._noun)
        by_name = np.empty(n + 1, np.int64)
        by_name[np.argsort(np.array([*self._names, "*ROOT*"]))] = np.arange(n + 1)
        depths = np.append(self.min_depth, 0)
        order = np.lexsort((-by_name, depths))
        rank = np.empty(n + 1, np.uint32)
        rank[order] = np.arange(1, n + 2)
        twice = 2 * np.append(self.max_depth, 0) + 2
        return Ranks(
            rank=rank[:n],
            fake_root=rank[n],
            min_depth=np.concatenate([[UNREACHABLE], depths[order]]).astype(np.uint8),
            twice_depth=np.concatenate([[0], twice[order]]).astype(np.uint8),
        )

    def path_distance(self, a: Rows, b: Rows) -> npt.NDArray[np.uint8]:
        """Distance of synsets ``a[i]`` and ``b[i]``, elementwise (broadcast); 255 where nothing joins them."""
        from modulant.lexicon.sweeps import path_pairs

        a, b = np.broadcast_arrays(self._checked(a), self._checked(b))
        distances = np.empty(a.size, np.uint8)
        path_pairs(a.flatten(), b.flatten(), self._ancestors, distances)
        return distances.reshape(a.shape)

    def path_similarity(self, a: Rows, b: Rows) -> npt.NDArray[np.float64]:
        """NLTK's ``a.path_similarity(b)``, elementwise on rows (broadcast); NaN where NLTK says None.

        >>> from modulant.lexicon import Lexicon
        >>> taxonomy = Lexicon.load().taxonomy
        >>> float(taxonomy.path_similarity(taxonomy.index("dog.n.01"), taxonomy.index("cat.n.01")))
        0.2
        """
        return similarity_of_distance()[self.path_distance(np.asarray(a), np.asarray(b))]

    def wup_similarity(self, a: Rows, b: Rows) -> npt.NDArray[np.float64]:
        """NLTK's ``a.wup_similarity(b)``, elementwise on rows (broadcast); NaN where NLTK says None.

        >>> from modulant.lexicon import Lexicon
        >>> taxonomy = Lexicon.load().taxonomy
        >>> round(float(taxonomy.wup_similarity(taxonomy.index("dog.n.01"), taxonomy.index("cat.n.01"))), 4)
        0.8571
        """
        from modulant.lexicon.sweeps import wup_pairs

        a, b = np.broadcast_arrays(self._checked(a), self._checked(b))
        similarities = np.empty(a.size, np.float64)
        wup_pairs(a.flatten(), b.flatten(), self._ancestors, self._ranks, similarities)
        return similarities.reshape(a.shape)

    def path_distances(self, ids: Rows) -> npt.NDArray[np.uint8]:
        """Distances of all pairs of ``ids``, an (n, n) matrix of bytes; 255 where nothing joins two synsets."""
        return self._paths(ids).whole()

    def path_blocks(self, ids: Rows, max_bytes: int = MAX_BYTES) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
        """`path_distances` as a stream of (columns, block (n, columns)), from left to right.

        Args:
            max_bytes: bound of the memory in use, beyond the graph itself: a block, the one before it, which the
                caller's loop still holds, and the ancestors' rows for some columns.

        Raises:
            ValueError: ``max_bytes`` is too little for one column.
        """
        return self._paths(ids).stream(max_bytes)

    def wup_matrix(self, ids: Rows, dtype: type[Float] = np.float64) -> npt.NDArray[Float]:  # type: ignore[assignment]
        """Wu–Palmer similarity of all pairs of ``ids``, (n, n): rows are NLTK's ``self``, columns its ``other``.

        NaN where NLTK says None. As float32, each is NLTK's number rounded.
        """
        return self._wups(ids, dtype).whole()

    def wup_blocks(
        self,
        ids: Rows,
        max_bytes: int = MAX_BYTES,
        dtype: type[Float] = np.float64,  # type: ignore[assignment]
    ) -> Iterator[tuple[slice, npt.NDArray[Float]]]:
        """`wup_matrix` as a stream of (columns, block (n, columns)), bounded as `path_blocks` is."""
        return self._wups(ids, dtype).stream(max_bytes)

    def hypernym_chains(self, ids: Rows, depth: int) -> npt.NDArray[np.int64]:
        """The way up from each of ``ids`` along the first hypernym: (n, depth) rows of the lexicon.

        Column ``k`` is ``k + 1`` steps above the synset; -1 beyond the chain's end. First is by name: of
        ``hypernyms()``, and of ``instance_hypernyms()`` where there are none.

        Raises:
            ValueError: ``depth`` is negative.
        """
        if depth < 0:
            raise ValueError(f"depth is {depth}; a chain has 0 steps or more")
        first = np.full(len(self._noun) + 1, -1, np.int64)  # the last row stands for a chain's end and leads to itself
        has = np.flatnonzero(np.diff(self._starts))
        first[has] = self._up[self._starts[has]]
        chains = np.empty((np.size(ids), depth), np.int64)
        here = self._checked(ids).reshape(-1)
        for k in range(depth):
            chains[:, k] = here = first[here]
        return chains

    def _paths(self, ids: Rows) -> Blocks[np.uint8]:
        from modulant.lexicon import sweeps

        ids, sweep = self._sweep(ids)
        rows = np.empty((len(sweep.nodes), sweeps.TILE), np.uint8)

        def fill(columns: npt.NDArray[np.int64], out: npt.NDArray[np.uint8]) -> None:
            sweeps.path_block(ids, columns, self._graph, self._ancestors, sweep, rows, out)

        return Blocks(ids, np.uint8, fill, rows.nbytes + sweep.nbytes)

    def _wups(self, ids: Rows, dtype: type[Float]) -> Blocks[Float]:
        from modulant.lexicon import sweeps

        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype is {np.dtype(dtype)}; similarities are float32 or float64")
        ids, sweep = self._sweep(ids)
        rows = np.empty((len(sweep.nodes), sweeps.TILE), np.uint32)

        def fill(columns: npt.NDArray[np.int64], out: npt.NDArray[Float]) -> None:
            sweeps.wup_block(ids, columns, self._graph, self._ancestors, self._ranks, sweep, rows, out)

        return Blocks(ids, dtype, fill, rows.nbytes + sweep.nbytes + self._ranks.rank.nbytes)

    def _sweep(self, ids: Rows) -> tuple[npt.NDArray[np.int64], "Sweep"]:
        """The ids, checked, and all that is above them."""
        from modulant.lexicon.sweeps import Sweep, above

        ids = self._checked(ids).reshape(-1)
        nodes = np.flatnonzero(above(ids, self._ancestors))
        nodes = nodes[np.argsort(self.max_depth[nodes], kind="stable")]
        place = np.zeros(len(self._noun), np.int32)
        place[nodes] = np.arange(len(nodes))
        return ids, Sweep(nodes, place)

    def _checked(self, rows: Rows) -> npt.NDArray[np.int64]:
        rows = np.asarray(rows)
        if rows.size and rows.dtype.kind not in "iu":
            raise ValueError(f"synset rows must be integers, got {rows.dtype}")
        if rows.size and (rows.min() < 0 or rows.max() >= len(self._noun)):
            raise ValueError(f"synset rows must lie in 0 … {len(self._noun) - 1}, got {rows.min()} … {rows.max()}")
        return rows.astype(np.int64)


def _depths(
    child: npt.NDArray[np.int64], parent: npt.NDArray[np.int32], n: int, extreme: np.ufunc
) -> npt.NDArray[np.int16]:
    """Steps from each synset up to a root: the most (np.maximum) or the fewest (np.minimum).

    Level by level: after k rounds the depths of all synsets at most k steps from a root are final.
    """
    start = 0 if extreme is np.maximum else _MAX_DEPTH + 1
    depth = np.full(n, start, dtype=np.int16)
    depth[np.setdiff1d(np.arange(n), child)] = 0
    for _ in range(_MAX_DEPTH + 1):
        before = depth.copy()
        extreme.at(depth, child, before[parent] + 1)
        if np.array_equal(depth, before):
            return depth
    raise ValueError(f"the hypernyms of this WordNet go round in a circle, or more than {_MAX_DEPTH} levels up")


def similarity_of_distance() -> npt.NDArray[np.float64]:
    """Path similarity of each possible byte of distance: 1 / (1 + d), NaN for unreachable."""
    similarity = 1.0 / (1.0 + np.arange(256, dtype=np.float64))
    similarity[UNREACHABLE] = np.nan
    return similarity
