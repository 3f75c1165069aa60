"""Load a backbone's tokenizer."""

import json
from pathlib import Path
from typing import Any

from modulant.assets import resolve_backbone
from modulant.backbones.hub import check_reachable


def load_tokenizer(backbone: str, revision: str | None = None, key: str = "model.backbone") -> Any:
    """Load the tokenizer of ``mini``, of a folder (a ``spiece.model`` in it suffices), or of a hub id.

    One without a pad token, as of many causal models, pads with its end token: padding is masked, so nothing depends on
    which token it is.

    Args:
        backbone: ``mini``, a folder, or a hub id.
        revision: branch, tag or commit of a hub id.
        key: configuration key of ``backbone``, for error messages.

    Raises:
        ValueError: there is none, it cannot be read, it has neither a pad nor an end token, or more tokens than the
            backbone has embeddings.
    """
    from transformers import AutoTokenizer, T5Tokenizer

    place = resolve_backbone(backbone)
    bare = (Path(place) / "spiece.model").is_file() and not (Path(place) / "config.json").is_file()
    try:
        check_reachable(place, revision)
        kind = T5Tokenizer if bare else AutoTokenizer
        tokenizer = kind.from_pretrained(place, trust_remote_code=False, **at_revision(revision))
    except (OSError, ValueError) as error:
        raise ValueError(f"{key}: {backbone!r} has no readable tokenizer ({first_line(error)})") from error
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ValueError(f"{key}: the tokenizer of {backbone!r} has no pad token and no end token to pad with")
        tokenizer.pad_token = tokenizer.eos_token
    tokens, rows = max([len(tokenizer), *(i + 1 for i in tokenizer.added_tokens_decoder)]), _rows(place, revision)
    if key == "model.backbone" and rows is not None and tokens > rows:
        raise ValueError(
            f"{key}: the tokenizer of {backbone!r} has {tokens:,} tokens, and its config.json {rows:,} (vocab_size): "
            "they are not of one model"
        )
    return tokenizer


def _rows(place: str, revision: str | None) -> int | None:
    """`vocab_size` in config.json, if it is there."""
    from transformers.utils.hub import cached_file

    file = cached_file(
        place,
        "config.json",
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
        **at_revision(revision),
    )
    try:
        rows = None if file is None else json.loads(Path(file).read_text(encoding="utf-8")).get("vocab_size")
    except (OSError, ValueError, AttributeError):
        return None
    return rows if isinstance(rows, int) else None


def at_revision(revision: str | None) -> dict[str, str]:
    """Keyword arguments for `from_pretrained`; without a revision transformers uses main."""
    return {} if revision is None else {"revision": revision}


def first_line(error: Exception) -> str:
    """First line of a library's error message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
