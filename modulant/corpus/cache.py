"""WordNet as one tokenizer sees it, kept on disk: to tokenise it takes seconds, and a run begins with it.

A file's name is a digest of everything that its arrays follow from: WordNet's texts, the tokenizer's own description,
the limits, the versions of the libraries. So nothing is ever out of date, and nothing has to be cleared.
"""

import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modulant.lexicon import Lexicon, cache_folder
from modulant.storage import StorageError, write_whole

_FORMAT = 1  # one more whenever the arrays, or the way they are made, change

Arrays = Mapping[str, npt.NDArray[Any]]


def file_for(lexicon: Lexicon, tokenizer: Any, settings: Sequence[object]) -> Path | None:
    """Where the arrays of this tokenizer belong; None for one that cannot tell what it does (no fast tokenizer)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    import tokenizers

    described = json.loads(backend.to_str())
    for state in ("truncation", "padding"):  # of the last call
        described.pop(state, None)
    digest = hashlib.blake2b(digest_size=16)
    told = [_FORMAT, tokenizers.__version__, type(tokenizer).__name__, *settings, described]
    digest.update(json.dumps(told, sort_keys=True, default=str).encode())
    for array in (
        lexicon.definitions.buffer, lexicon.definitions.offsets, lexicon.lemmas.buffer, lexicon.lemmas.offsets,
        lexicon.lemma_starts,
    ):  # fmt: skip
        digest.update(np.ascontiguousarray(array).data)
    return cache_folder() / f"corpus-{digest.hexdigest()}.npz"


def read(file: Path, names: Sequence[str]) -> Arrays | None:
    """The arrays of these names; None if there are none that can be read whole (each has a checksum)."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in names}
    except Exception:  # whatever a damaged file makes of NumPy and zipfile: it is tokenised again
        return None


def publish(file: Path, arrays: Arrays) -> None:
    """All of it or nothing. A cache that cannot be written costs seconds at each start, not the run."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, buffer.getvalue())
    except (OSError, StorageError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        print(f"{file}: the tokenised texts cannot be cached ({reason}); going on without", file=sys.stderr)
