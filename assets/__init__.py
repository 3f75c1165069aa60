"""What the project ships beside its code: WordNet 3.0 and `mini`, the backbone trained on it.

Only paths and checksums live here, so that anybody may import it for nothing.
"""

from pathlib import Path

ASSETS = Path(__file__).resolve().parent

WORDNET_ZIP = ASSETS / "wordnet-3.0.zip"
WORDNET_SHA256 = "951b1f403383b512ad01b734bcf62e350110afb4b50d8cbb38502409a7b1570e"

MINI = ASSETS / "mini"


def resolve_backbone(name: str) -> str:
    """Where the files of a backbone are: the bundled folder for ``mini``, any other folder or hub id as it is."""
    return str(MINI) if name == "mini" else str(Path(name).expanduser()) if name.startswith("~") else name
