"""Load a backbone's tokenizer."""

from pathlib import Path
from typing import Any

from modulant.assets import resolve_backbone


def load_tokenizer(backbone: str, revision: str | None = None, key: str = "model.backbone") -> Any:
    """Load the tokenizer of ``mini``, of a folder (a ``spiece.model`` in it suffices), or of a hub id.

    Args:
        backbone: ``mini``, a folder, or a hub id.
        revision: branch, tag or commit of a hub id.
        key: configuration key of ``backbone``, for error messages.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer, T5Tokenizer

    place = resolve_backbone(backbone)
    bare = (Path(place) / "spiece.model").is_file() and not (Path(place) / "config.json").is_file()
    try:
        kind = T5Tokenizer if bare else AutoTokenizer
        return kind.from_pretrained(place, trust_remote_code=False, **at_revision(revision))
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {backbone!r} has no readable tokenizer ({first_line(error)})") from error


def at_revision(revision: str | None) -> dict[str, str]:
    """Keyword arguments for `from_pretrained`; without a revision transformers uses main."""
    return {} if revision is None else {"revision": revision}


def first_line(error: Exception) -> str:
    """First line of a library's error message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
