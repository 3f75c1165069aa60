"""Loops over the hypernym graph, compiled: ancestors of every synset, and similarities of pairs and of whole blocks.

A block of all rows × some columns is one sweep down the graph, hypernyms before hyponyms, `TILE` columns at a time, so
that a node's hypernyms are still in the processor's cache. Compiled code is cached in ``__pycache__``; importing this
takes a third of a second, so `taxonomy` imports it when first needed.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from modulant.lexicon.compiled import compiled

TILE = 256  # columns of one sweep: wider takes more memory and is no faster, 64 is half as fast
FAR = np.uint8(127)  # no path: more than any distance (2 × 61), and FAR + FAR fits into a byte
UNREACHABLE = np.uint8(255)
_ONE = np.uint8(1)


class Graph(NamedTuple):
    """Synset ``i`` has the hypernyms ``up[starts[i]:starts[i + 1]]``."""

    up: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]


class Ancestors(NamedTuple):
    """Synset ``i`` has the ancestors ``node[starts[i]:starts[i + 1]]``, itself first, nearest first.

    ``steps``: the fewest steps up; ``path``: the path distance, which may be shorter, over another ancestor of both.
    """

    starts: npt.NDArray[np.int64]
    node: npt.NDArray[np.int32]
    steps: npt.NDArray[np.uint8]
    path: npt.NDArray[np.uint8]
    to_fake_root: npt.NDArray[np.uint8]  # of each synset, 1 + the largest of its steps
    rooted: npt.NDArray[np.bool_]  # of each synset: no noun, so each pair with it has the fake root


class Ranks(NamedTuple):
    """Subsumers in the order in which Wu–Palmer prefers them; rank 0 is none at all.

    Ascending by min_depth, of equals the smallest name last; the fake root has depth 0 and the name ``*ROOT*``.
    """

    rank: npt.NDArray[np.uint32]  # of each synset
    fake_root: np.uint32
    min_depth: npt.NDArray[np.uint8]  # of each rank
    twice_depth: npt.NDArray[np.uint8]  # of each rank: 2 (max_depth + 1)


class Sweep(NamedTuple):
    """The nodes above some synsets, hypernyms first, and each node's place among them."""

    nodes: npt.NDArray[np.int64]
    place: npt.NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        return self.nodes.nbytes + self.place.nbytes


@compiled
def _climb(node: int, graph: Graph, found: Any, steps: Any, seen: Any) -> int:
    """Breadth-first search from a synset to its roots: fills ``found`` and ``steps``, returns their number."""
    found[0], steps[0], seen[node] = node, 0, True
    count = 1
    here = 0
    while here < count:
        for above in graph.up[graph.starts[found[here]] : graph.starts[found[here] + 1]]:
            if not seen[above]:
                found[count], steps[count], seen[above] = above, steps[here] + 1, True
                count += 1
        here += 1
    for k in range(count):
        seen[found[k]] = False
    return count


@compiled
def _count_ancestors(graph: Graph, counts: Any) -> None:
    found, steps = np.empty(len(counts), np.int32), np.empty(len(counts), np.uint8)
    seen = np.zeros(len(counts), np.bool_)
    for i in range(len(counts)):
        counts[i] = _climb(i, graph, found, steps, seen)


@compiled
def _list_ancestors(graph: Graph, table: Ancestors) -> None:
    seen = np.zeros(len(table.rooted), np.bool_)
    for i in range(len(table.rooted)):
        first, end = table.starts[i], table.starts[i + 1]
        _climb(i, graph, table.node[first:end], table.steps[first:end], seen)
        table.to_fake_root[i] = table.steps[end - 1] + 1


def all_ancestors(graph: Graph, rooted: npt.NDArray[np.bool_]) -> Ancestors:
    """The ancestors of every synset."""
    n = len(rooted)
    starts = np.zeros(n + 1, np.int64)
    _count_ancestors(graph, starts[1:])
    np.cumsum(starts, out=starts)
    steps, path = np.empty(starts[-1], np.uint8), np.empty(starts[-1], np.uint8)
    table = Ancestors(starts, np.empty(starts[-1], np.int32), steps, path, np.empty(n, np.uint8), rooted)
    _list_ancestors(graph, table)
    path_pairs(np.repeat(np.arange(n), np.diff(starts)), table.node, table, path)
    return table


@compiled
def above(ids: Any, table: Ancestors) -> Any:
    """Whether each synset is one of ``ids`` or an ancestor of one."""
    is_above = np.zeros(len(table.rooted), np.bool_)
    for i in ids:
        for k in range(table.starts[i], table.starts[i + 1]):
            is_above[table.node[k]] = True
    return is_above


@compiled
def path_pairs(a: Any, b: Any, table: Ancestors, out: Any) -> None:
    """Path distance of each ``a[i]``, ``b[i]``."""
    near = np.full(len(table.rooted), FAR, np.uint8)
    for i in range(len(a)):
        x, y = a[i], b[i]
        for k in range(table.starts[x], table.starts[x + 1]):
            near[table.node[k]] = table.steps[k]
        best = FAR
        for k in range(table.starts[y], table.starts[y + 1]):
            best = min(best, np.uint8(near[table.node[k]] + table.steps[k]))
        if x != y and (table.rooted[x] or table.rooted[y]):
            best = min(best, np.uint8(table.to_fake_root[x] + table.to_fake_root[y]))
        for k in range(table.starts[x], table.starts[x + 1]):
            near[table.node[k]] = FAR
        out[i] = best if best < FAR else UNREACHABLE


@compiled
def wup_pairs(a: Any, b: Any, table: Ancestors, ranks: Ranks, out: Any) -> None:
    """Wu–Palmer similarity of each ``a[i]`` (NLTK's self) with ``b[i]`` (other)."""
    near = np.full(len(table.rooted), FAR, np.uint8)
    for i in range(len(a)):
        x, y = a[i], b[i]
        for k in range(table.starts[x], table.starts[x + 1]):
            near[table.node[k]] = table.path[k]
        best, length = np.uint32(0), np.int64(0)
        if table.rooted[x] or table.rooted[y]:
            best, length = ranks.fake_root, np.int64(table.to_fake_root[x]) + table.to_fake_root[y]
        own = np.int64(-1)  # the distance from y, if x is an ancestor of y
        for k in range(table.starts[y], table.starts[y + 1]):
            node = table.node[k]
            if near[node] < FAR and ranks.rank[node] > best:
                best, length = ranks.rank[node], np.int64(near[node]) + table.path[k]
            if node == x:
                own = np.int64(table.path[k])
        if own >= 0 and ranks.min_depth[ranks.rank[x]] == ranks.min_depth[best]:
            best, length = ranks.rank[x], own
        for k in range(table.starts[x], table.starts[x + 1]):
            near[table.node[k]] = FAR
        out[i] = ranks.twice_depth[best] / (length + ranks.twice_depth[best])


@compiled
def path_block(ids: Any, columns: Any, graph: Graph, table: Ancestors, sweep: Sweep, rows: Any, out: Any) -> None:
    """Path distances of ``ids`` and ``columns``: out (ids, columns); ``rows`` (nodes, TILE) is scratch space.

    A node's row is the smaller of its own descendants' steps and 1 + its hypernyms' rows, because a path over any
    ancestor leaves the node through one of its hypernyms.
    """
    both = np.full(TILE, FAR, np.uint8)  # columns' steps to the fake root, for rows that are rooted,
    theirs = np.full(TILE, FAR, np.uint8)  # and for rows that are nouns
    for first in range(0, len(columns), TILE):
        tile = columns[first : first + TILE]
        for i in range(len(rows)):
            for j in range(TILE):
                rows[i, j] = FAR
        for j in range(len(tile)):
            for k in range(table.starts[tile[j]], table.starts[tile[j] + 1]):
                rows[sweep.place[table.node[k]], j] = table.steps[k]
            both[j] = table.to_fake_root[tile[j]]
            theirs[j] = both[j] if table.rooted[tile[j]] else FAR
        for i in range(len(sweep.nodes)):
            node = sweep.nodes[i]
            for k in range(graph.starts[node], graph.starts[node + 1]):
                upper = sweep.place[graph.up[k]]
                for j in range(TILE):
                    rows[i, j] = min(rows[i, j], np.uint8(rows[upper, j] + _ONE))
        for i in range(len(ids)):
            row, root = rows[sweep.place[ids[i]]], table.to_fake_root[ids[i]]
            others = both if table.rooted[ids[i]] else theirs
            for j in range(len(tile)):
                nearest = min(row[j], np.uint8(root + others[j]))
                out[i, first + j] = nearest if nearest < FAR else UNREACHABLE


@compiled
def wup_block(
    ids: Any, columns: Any, graph: Graph, table: Ancestors, ranks: Ranks, sweep: Sweep, rows: Any, out: Any
) -> None:
    """Wu–Palmer similarities of ``ids`` (NLTK's self) and ``columns`` (other): out (ids, columns); rows are uint32.

    A node's row holds keys ``rank << 8 | distance from the column`` of the best subsumer, and is the largest of its own
    descendants' and its hypernyms' rows.
    """
    both, theirs = np.zeros(TILE, np.uint32), np.zeros(TILE, np.uint32)  # as in path_block, but keys
    entries = np.empty(TILE, np.uint32)
    own = np.zeros(len(ranks.min_depth), np.uint32)  # of each rank: twice_depth << 8 | distance from the row
    for first in range(0, len(columns), TILE):
        tile = columns[first : first + TILE]
        for j in range(len(tile)):
            both[j] = ranks.fake_root << 8 | table.to_fake_root[tile[j]]
            theirs[j] = both[j] if table.rooted[tile[j]] else 0
        for i in range(len(sweep.nodes)):
            keys = both if table.rooted[sweep.nodes[i]] else theirs
            for j in range(TILE):
                rows[i, j] = keys[j]
        for j in range(len(tile)):
            for k in range(table.starts[tile[j]], table.starts[tile[j] + 1]):
                i = sweep.place[table.node[k]]
                rows[i, j] = max(rows[i, j], np.uint32(ranks.rank[table.node[k]] << 8 | table.path[k]))
        for i in range(len(sweep.nodes)):
            node = sweep.nodes[i]
            for k in range(graph.starts[node], graph.starts[node + 1]):
                upper = sweep.place[graph.up[k]]
                for j in range(TILE):
                    rows[i, j] = max(rows[i, j], rows[upper, j])
        # NLTK takes the row's own synset if no subsumer is deeper. No row depends on another from here on.
        for j in range(len(tile)):
            for k in range(table.starts[tile[j]], table.starts[tile[j] + 1]):
                node = table.node[k]
                i, rank = sweep.place[node], ranks.rank[node]
                if ranks.min_depth[rows[i, j] >> 8] == ranks.min_depth[rank]:
                    rows[i, j] = rank << 8 | table.path[k]
        for i in range(len(ids)):
            row = rows[sweep.place[ids[i]]]
            own[ranks.fake_root] = np.uint32(2) << 8 | table.to_fake_root[ids[i]]
            for k in range(table.starts[ids[i]], table.starts[ids[i] + 1]):
                rank = ranks.rank[table.node[k]]
                own[rank] = np.uint32(ranks.twice_depth[rank]) << 8 | table.path[k]
            for j in range(TILE):
                entries[j] = own[row[j] >> 8]
            for j in range(len(tile)):
                depth = np.int32(entries[j] >> 8)
                length = np.int32((entries[j] & 255) + (row[j] & 255))
                out[i, first + j] = depth / (depth + length)
