"""Initialisation of LERP's embeddings before training: from WordNet, or from one of the controls that a lift must beat.

From WordNet: Wu–Palmer similarity of the anchors' synsets → leading eigenvectors → a point for each anchor →
points for the other kept tokens from their nearest anchors → a rotation into the residual stream. The controls keep
every step and every parameter, and take away one thing: which token has which point (shuffled), all of the taxonomy
(random), all but the part of speech, or the points altogether (none).
"""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from modulant.geometry import (
    mean_cosine,
    mean_of_nearest,
    orthogonal_procrustes,
    principal_axes,
    reproduction,
    spectral_embedding,
)
from modulant.lexicon import Entries, Lexicon
from modulant.settings import Interval, PositiveInt, Seed, checked
from modulators.arguments import check_alignment

MAX_ANCHORS = 20_000  # their similarities take its square times 4 bytes
_SHARPNESS = 10.0  # of the softmax over the nearest anchors' cosines
_SCALE = 0.1  # length of a projected point, relative to the mean length of the anchors' representations
_WHOLE_BELOW = 512  # anchors up to which a full eigendecomposition is as quick as Lanczos


@dataclass(frozen=True)
class Geometry:
    """How a modulator's geometric embeddings are initialised before training.

    Attributes:
        kind: ``wordnet``; or a control: ``shuffled``, ``random``, ``part_of_speech``, ``none``. Shuffled gives
            WordNet's points to the wrong tokens, random takes unit vectors, part of speech one point for each, none
            zeros, which do not learn.
        anchors: synsets that it is made from: ``all``, or those of ``training`` entries alone. With the latter nothing
            of the held-out synsets' place in WordNet goes in.
        n_anchors: a seeded sample of so many of them; null: all.
        n_neighbours: anchors that a lemma without an anchor averages.
        unmatched: rows of tokens that are no lemma: ``zero`` or ``random``. Random is N(0, 1) a component, √G times as
            long as the others.
        seed: of the sample, the shuffling and the random rows.

    Raises:
        ValueError: a value out of its range, by its key.
    """

    kind: Literal["wordnet", "shuffled", "random", "part_of_speech", "none"] = "wordnet"
    anchors: Literal["all", "training"] = "all"
    n_anchors: Annotated[int, Interval(minimum=2, maximum=MAX_ANCHORS)] | None = None
    n_neighbours: PositiveInt = 10
    unmatched: Literal["zero", "random"] = "zero"
    seed: Seed = 42

    @checked
    def __post_init__(self) -> None: ...


class LexicalData(NamedTuple):
    """What the initialisation takes from the data.

    Attributes:
        lexicon: WordNet.
        tokens: (T,) ids of the kept tokens, each once.
        token_synsets: (T,) their synsets, as rows of the lexicon.
        synsets: (P,) the population's distinct synsets.
        held_out: (P,) which of them no training entry uses.
        representations: (P, D) the frozen encoder's representation of each one's definition.
    """

    lexicon: Lexicon
    tokens: npt.NDArray[np.int64]
    token_synsets: npt.NDArray[np.int64]
    synsets: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.bool_]
    representations: Tensor


def lexical_data(
    entries: Entries, synsets: npt.NDArray[np.int64], held_out: npt.NDArray[np.bool_], representations: Tensor
) -> LexicalData:
    """Lexical data of a DataModule's entries and population; of entries that repeat a token the first one counts."""
    kept = np.flatnonzero(entries.token >= 0)
    tokens, first = np.unique(entries.token[kept], return_index=True)
    return LexicalData(entries.lexicon, tokens, entries.synset[kept[first]], synsets, held_out, representations)


class InitialGeometry(NamedTuple):
    """Embeddings (V, G) and projection (D, G) of a modulator before training, and their provenance."""

    rows: Tensor
    projection: Tensor
    provenance: dict[str, Any]


@runtime_checkable
class TakesGeometry(Protocol):
    """A modulator with an embedding for each token and a projection into the stream."""

    n_geometric_dims: int

    def place_geometry(self, rows: Tensor, projection: Tensor) -> None: ...
    def freeze_geometry(self) -> None: ...


def initial_geometry(geometry: Geometry, words: LexicalData, static: Tensor, n_dims: int) -> InitialGeometry:
    r"""Embeddings and projection of a modulator before training, as `geometry` specifies.

    With anchors' points `geo` (A, G), their centred representations' leading axes `PCA` (G, D), and `enc` (A, G) the
    coordinates along those, rows of length 1, both sides centred: R = argmin ‖geo·R − enc‖ over rotations, and
    W = (R·PCA)ᵀ · 0.1 · mean‖representation‖.

    Args:
        geometry: the specification.
        words: tokens, synsets and their representations.
        static: (V, D), the backbone's input embeddings.
        n_dims: G.

    Raises:
        ValueError: more geometric dimensions than the stream has, or fewer than two anchors, or too many.
    """
    vocabulary, width = static.shape
    check_alignment(n_dims, width)
    anchors = _anchors(geometry, words)  # (A,) rows of the population
    if len(anchors) < 2:
        raise ValueError(
            f"model.geometry: {len(anchors)} anchors are too few; the data must have more lemmas of one token"
        )
    if len(anchors) > MAX_ANCHORS:
        raise ValueError(
            f"model.geometry.n_anchors: {len(anchors)} anchors need {len(anchors) ** 2 * 4 / 2**30:.0f} GiB of "
            f"similarities; name a number up to {MAX_ANCHORS}"
        )
    generator = torch.Generator().manual_seed(geometry.seed)
    points, made = _points(geometry, words, anchors, n_dims, generator)
    kept = _token_points(geometry, words, anchors, points, static.float().cpu())
    if geometry.kind == "shuffled":
        kept = kept[torch.randperm(len(kept), generator=generator)]
    rows = torch.zeros(vocabulary, n_dims)
    if geometry.unmatched == "random":
        rows = torch.randn(vocabulary, n_dims, generator=generator)
    rows[torch.from_numpy(words.tokens)] = kept
    projection, aligned = _align(points, words.representations[torch.from_numpy(anchors)].float().cpu())
    provenance = {
        **asdict(geometry),
        "wordnet": words.lexicon.version,
        "n_anchors": len(anchors),
        "anchors_held_out": int(words.held_out[anchors].sum()),
        "matched_tokens": len(words.tokens),
        "tokens_by_neighbours": int((~np.isin(words.token_synsets, words.synsets[anchors])).sum()),
        **made,
        "alignment_cosine": aligned,
    }
    return InitialGeometry(rows, projection, provenance)


def _anchors(geometry: Geometry, words: LexicalData) -> npt.NDArray[np.int64]:
    """Rows of the population that have a kept token, ascending."""
    usable = np.isin(words.synsets, words.token_synsets)
    if geometry.anchors == "training":
        usable &= ~words.held_out
    rows = np.flatnonzero(usable)
    if geometry.n_anchors is None:
        return rows
    if geometry.n_anchors > len(rows):
        raise ValueError(f"model.geometry.n_anchors is {geometry.n_anchors}; there are {len(rows)} to choose from")
    return np.sort(np.random.default_rng(geometry.seed).choice(rows, geometry.n_anchors, replace=False))


def _points(
    geometry: Geometry, words: LexicalData, anchors: npt.NDArray[np.int64], n_dims: int, generator: torch.Generator
) -> tuple[Tensor, dict[str, Any]]:
    """Points of the anchors, (A, G) with rows of length 1, and their entries in the provenance."""
    synsets = words.synsets[anchors]
    if geometry.kind == "random":
        return F.normalize(torch.randn(len(anchors), n_dims, generator=generator), dim=-1), {}
    if geometry.kind == "part_of_speech":
        kinds, number = np.unique(words.lexicon.part_of_speech[synsets], return_inverse=True)
        if len(kinds) > n_dims:
            raise ValueError(f"model.modulator.n_geometric_dims is {n_dims}; {len(kinds)} parts of speech need as many")
        return F.one_hot(torch.from_numpy(number), n_dims).float(), {"parts_of_speech": kinds.tolist()}
    similarity = wu_palmer(words.lexicon, synsets)
    values, vectors = leading_eigenpairs(similarity, min(n_dims, len(anchors)))
    points = spectral_embedding(torch.from_numpy(values), torch.from_numpy(vectors))
    points = F.pad(points, (0, n_dims - len(values)))  # a WordNet with fewer anchors than dimensions spans no more
    kept = float(reproduction(torch.from_numpy(similarity), points))
    return points, {"eigenvalues": [round(float(value), 4) for value in values], "reconstruction_correlation": kept}


def wu_palmer(lexicon: Lexicon, synsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Wu–Palmer similarity of all pairs, symmetrised, 1 on the diagonal, 0 where nothing joins two synsets."""
    similarity = lexicon.taxonomy.wup_matrix(synsets).astype(np.float32, copy=False)
    similarity = np.nan_to_num(similarity, copy=False, nan=0.0)
    similarity += similarity.T.copy()
    similarity *= 0.5
    np.fill_diagonal(similarity, 1.0)
    return similarity


def leading_eigenpairs(
    matrix: npt.NDArray[np.float32], n: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The `n` largest eigenvalues of a symmetric matrix, descending, and their vectors as columns.

    Lanczos from a fixed start, so equal matrices give equal vectors: of 8,693 eigenvectors 64 are wanted, and a full
    decomposition would take minutes for seconds.
    """
    if len(matrix) <= max(_WHOLE_BELOW, 2 * n):
        values, vectors = np.linalg.eigh(matrix)
    else:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).standard_normal(len(matrix)).astype(np.float32)
        values, vectors = eigsh(matrix, k=n, which="LA", v0=start, tol=1e-5)
    order = np.argsort(values)[::-1][:n]
    return np.ascontiguousarray(values[order]), np.ascontiguousarray(vectors[:, order])


def _token_points(
    geometry: Geometry, words: LexicalData, anchors: npt.NDArray[np.int64], points: Tensor, static: Tensor
) -> Tensor:
    """(T, G): a kept token has its synset's point if that is an anchor, else the mean of its nearest anchors'."""
    place = np.full(len(words.lexicon), -1)
    place[words.synsets[anchors]] = np.arange(len(anchors))
    of_token = torch.from_numpy(place[words.token_synsets])  # (T,), -1 where there is no anchor
    known = of_token >= 0
    embeddings = static[torch.from_numpy(words.tokens)]
    # Synonyms share an anchor, which is then where their static embeddings are on average.
    counts = torch.zeros(len(anchors)).index_add_(0, of_token[known], torch.ones(int(known.sum())))
    anchor_embeddings = torch.zeros(len(anchors), static.shape[1]).index_add_(0, of_token[known], embeddings[known])
    result = torch.empty(len(words.tokens), points.shape[1])
    result[known] = points[of_token[known]]
    if not known.all():
        mean = anchor_embeddings / counts.unsqueeze(-1)
        k = min(geometry.n_neighbours, len(anchors))
        result[~known] = mean_of_nearest(embeddings[~known], mean, points, k, _SHARPNESS)
    return result


def _align(points: Tensor, representations: Tensor) -> tuple[Tensor, float]:
    """The projection (D, G), and the mean cosine of the rotated points with the representations' coordinates."""
    axes = principal_axes(representations, points.shape[1])  # (G, D)
    coordinates = F.normalize((representations - representations.mean(0)) @ axes.mT, dim=-1)
    coordinates = coordinates - coordinates.mean(0)
    centred = points - points.mean(0)
    rotation = orthogonal_procrustes(centred, coordinates)
    length = representations.norm(dim=-1).mean()
    projection = (rotation @ axes).mT * (_SCALE * length)
    return projection.contiguous(), float(mean_cosine(centred @ rotation, coordinates))
