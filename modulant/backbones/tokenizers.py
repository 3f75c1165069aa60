"""A backbone's own tokenizer."""

from pathlib import Path
from typing import Any

from modulant.assets import resolve_backbone


def load_tokenizer(backbone: str, revision: str | None = None, key: str = "model.backbone") -> Any:
    """The tokenizer of ``mini``, of a folder (a bare ``spiece.model`` in it will do), or of a hub id.

    Args:
        backbone: ``mini``, a folder, or a hub id.
        revision: branch, tag or commit of a hub id.
        key: the configuration's key for ``backbone``, named in an error.

    Raises:
        ValueError: there is none that can be read.
    """
    from transformers import AutoTokenizer, T5Tokenizer

    place = resolve_backbone(backbone)
    bare = (Path(place) / "spiece.model").is_file() and not (Path(place) / "config.json").is_file()
    try:
        kind = T5Tokenizer if bare else AutoTokenizer
        return kind.from_pretrained(place, trust_remote_code=False, **at_revision(revision))
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {backbone!r} has no tokenizer that can be read ({first_line(error)})") from error


def at_revision(revision: str | None) -> dict[str, str]:
    """Keyword arguments for `from_pretrained`; left out, a revision is what transformers takes for main."""
    return {} if revision is None else {"revision": revision}


def first_line(error: Exception) -> str:
    """The first line of a library's error message, without the page that may follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
