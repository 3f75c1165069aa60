"""Where WordNet comes from: the bundled archive, or a user-supplied nltk_data; and its checksum.

The bundled zip is checked against the checksum in `assets` before it is read. NLTK reads it in place; nothing is
unpacked, and NLTK's downloader is never called.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modulant.assets import WORDNET_SHA256, WORDNET_ZIP

# The files the arrays are made from; NLTK numbers a synset's name ("dog.n.01") by the index files.
_DATA_FILES = (
    *(f"{kind}.{pos}" for kind in ("data", "index") for pos in ("adj", "adv", "noun", "verb")),
    "lexnames",
)
_NAMES = ("wordnet", "wordnet31", "wordnet2021", "wordnet2022")  # of NLTK's packages; each is a zip, or its folder
_LARGEST = 512 << 20  # bytes; WordNet 3.0 unpacks to 40 MB


class LexiconError(ValueError):
    """WordNet is missing, damaged, or not a WordNet."""


@dataclass(frozen=True)
class Archive:
    """A WordNet database that NLTK can read: a zip with a folder such as ``wordnet/``, or such a folder."""

    path: Path
    sha256: str

    @classmethod
    def find(cls, nltk_data: str | Path | None = None) -> "Archive":
        """The bundled WordNet, or the one in a user-supplied ``nltk_data`` folder (or a zip).

        Raises:
            LexiconError: no readable WordNet is there, or the bundled archive does not have its checksum.
        """
        if nltk_data is None:
            if not WORDNET_ZIP.is_file():
                raise LexiconError(f"{WORDNET_ZIP}: the bundled WordNet is missing; get it back from the repository")
            digest = _sha256([WORDNET_ZIP])
            if digest != WORDNET_SHA256:
                raise LexiconError(
                    f"{WORDNET_ZIP}: the bundled WordNet is damaged (sha256 {digest[:12]}…, should be "
                    f"{WORDNET_SHA256[:12]}…); get it back from the repository or run scripts/build_wordnet.py"
                )
            return cls(WORDNET_ZIP, digest)
        root = Path(nltk_data).expanduser()
        if root.is_file():
            return cls(root, _sha256([root]))
        for name in _NAMES:
            for candidate in (root / f"corpora/{name}.zip", root / f"{name}.zip"):
                if candidate.is_file():
                    return cls(candidate, _sha256([candidate]))
            for folder in (root / f"corpora/{name}", root / name, root):
                files = [folder / file for file in _DATA_FILES]
                if all(file.is_file() for file in files):
                    return cls(folder, _sha256(files))
        raise LexiconError(f"{root}: no WordNet here; expected corpora/wordnet.zip or a folder corpora/wordnet")

    def reader(self) -> Any:
        """NLTK's corpus reader over this archive.

        Raises:
            LexiconError: NLTK cannot read it.
        """
        import warnings

        import nltk.data
        from nltk.corpus.reader.wordnet import WordNetCorpusReader
        from nltk.data import FileSystemPathPointer, ZipFilePathPointer

        class EnglishReader(WordNetCorpusReader):
            """Without the map between WordNet versions: only other languages need it, and it is in another corpus."""

            def map_wn(self, version: str = "wordnet") -> None:
                return None

        # NLTK opens nothing outside the folders of its own search path.
        self._check_size()
        folder = str(self.path if self.path.is_dir() else self.path.parent)
        if folder not in nltk.data.path:
            nltk.data.path.append(folder)
        try:
            with warnings.catch_warnings():
                # Issued for every English-only WordNet; only English is read here.
                warnings.filterwarnings("ignore", message="The multilingual functions are not available")
                warnings.simplefilter("ignore", ResourceWarning)  # NLTK leaves `lexnames` open
                if self.path.is_dir():
                    return EnglishReader(FileSystemPathPointer(str(self.path)), None)
                return EnglishReader(ZipFilePathPointer(str(self.path), self._folder()), None)
        except Exception as error:  # NLTK raises zipfile, OS, index and value errors alike for a damaged archive
            raise self.unreadable(error) from error

    def _folder(self) -> str:
        """The folder in a zip that holds the database: ``wordnet31/`` in NLTK's ``wordnet31.zip``."""
        with zipfile.ZipFile(self.path) as archive:
            names = archive.namelist()
        found = [name.removesuffix("data.noun") for name in names if name.rpartition("/")[2] == "data.noun"]
        return min(found, key=lambda name: (name != "wordnet/", name.count("/"), name), default="wordnet/")

    def _check_size(self) -> None:
        """Refuses a zip that unpacks to much more than WordNet: NLTK reads each member into memory as a whole.

        Raises:
            LexiconError: the members are too large, or the file is no zip.
        """
        if self.path.is_dir():
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
            raise self.unreadable(error) from error
        if unpacked > _LARGEST:
            raise LexiconError(
                f"{self.path}: unpacks to {unpacked:,} bytes, and no WordNet is larger than {_LARGEST:,}; name another"
            )

    def unreadable(self, error: Exception) -> LexiconError:
        """One line for an error of NLTK, zipfile or the system, which may be a page."""
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        return LexiconError(f"{self.path}: not a WordNet that NLTK can read ({reason})")


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            digest.update(file.read_bytes())
        except OSError as error:
            raise LexiconError(f"{file}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
