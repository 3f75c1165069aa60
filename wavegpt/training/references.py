"""What a text costs without a model: by equal chances, by frequencies alone, and by compressors."""

import bz2
import lzma
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

COMPRESSED = 2**22  # bytes of a longer text that are compressed


def references(
    predicted: npt.NDArray[np.integer],
    byte_lengths: npt.NDArray[np.integer],
    frequencies: npt.NDArray[np.float64],
    text: bytes,
) -> Mapping[str, float]:
    """Bits per byte of a text by models that nothing is learnt for, or counts alone.

    ``uniform`` gives each id of the vocabulary the same chance, ``unigram`` its frequency in the training part; ``xz``
    and ``bz2`` compress the text by itself, at their highest setting, of a longer one the first 4 MiB.

    Args:
        predicted: ids of the text, each that is predicted, (N,).
        byte_lengths: bytes of each id, (V,).
        frequencies: of each id in the training part, all above 0, (V,).
        text: the bytes that the ids stand for.

    >>> lengths = np.ones(256, dtype=int)
    >>> references(np.zeros(80, dtype=int), lengths, lengths / 256, b"a" * 80)["uniform"]
    8.0
    """
    size = float(byte_lengths[predicted].sum())
    counts = np.bincount(predicted, minlength=len(frequencies))
    some = text[:COMPRESSED]
    shorter = {"xz": lzma.compress(some, preset=9 | lzma.PRESET_EXTREME), "bz2": bz2.compress(some)}
    return {
        "uniform": len(predicted) * math.log2(len(frequencies)) / size,
        "unigram": float(-(counts * np.log2(frequencies)).sum()) / size,
        **{name: 8 * len(compressed) / len(some) for name, compressed in shorter.items()},
    }


def by_frequency(
    predicted: npt.NDArray[np.integer], decile: npt.NDArray[np.integer], frequencies: npt.NDArray[np.float64]
) -> Mapping[str, list[float | None]]:
    """Of each tenth of the vocabulary its ``share`` of a text's tokens, and its nats a token by frequency alone.

    Args:
        predicted: ids of the text, (N,).
        decile: tenth of each id, (V,): 0 … 9.
        frequencies: of each id in the training part, all above 0, (V,).

    Returns:
        ``share`` and ``unigram``, ten numbers each; null where the text has no such token.

    >>> by_frequency(np.array([0, 0, 0, 1]), np.array([0, 5]), np.array([0.75, 0.25]))["share"][:6]
    [0.75, 0.0, 0.0, 0.0, 0.0, 0.25]
    """
    counts = np.bincount(predicted, minlength=len(frequencies))
    tokens = np.bincount(decile, counts, minlength=10)
    nats = np.bincount(decile, -counts * np.log(frequencies), minlength=10)
    unigram = [float(sum_ / n) if n else None for sum_, n in zip(nats, tokens, strict=True)]
    return {"share": (tokens / max(len(predicted), 1)).tolist(), "unigram": unigram}
