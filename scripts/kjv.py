"""Prepares the King James Bible as a corpus (`data.corpus: kjv`): chapters of continuous prose, 4 MB, from Debian.

    python scripts/kjv.py            # prints the file, in the user's cache folder
    python scripts/kjv.py --to FILE  # any other name

The packages bible-kjv-text (the text, packed) and bible-kjv (its reader) are downloaded by apt, which checks them, and
unpacked, not installed: no root is needed. Where the reader is installed, that is used. A verse is a line, a chapter a
document. The text is in the public domain (in the United Kingdom under the Crown's patent); its file is "for
unrestricted use" as long as its legend goes along, the reader is under GPL-2+.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from datamodules.arguments import END_OF_TEXT, KJV_SHA256, kjv_file
from modulant.storage import sha256_of, write_whole

PACKAGES = ("bible-kjv-text", "bible-kjv")
ALL = "gen1:1-rev22:21"
_VERSE = re.compile(r"(\d?[A-Za-z]+\d+):\d+ +(.*)")


def chapters(lines: Iterable[str]) -> str:
    """Chapters of verses, each with its place before it, as one text: a verse a line, marks between chapters.

    >>> chapters(["Ge1:1 In the beginning", "Ge1:2 And the earth", "Ge2:1 Thus the heavens"])
    'In the beginning\\nAnd the earth\\n<|endoftext|>\\nThus the heavens\\n'
    """
    found: dict[str, list[str]] = {}
    for line in lines:
        if (verse := _VERSE.fullmatch(line.strip())) is None:
            sys.exit(f"the reader of the Bible printed a line that is no verse: {line.strip()[:60]}")
        found.setdefault(verse[1], []).append(verse[2].strip())
    return f"\n{END_OF_TEXT}\n".join("\n".join(verses) for verses in found.values()) + "\n"


def verses(folder: Path) -> list[str]:
    """All verses, by the reader of Debian's package."""
    reader, data = shutil.which("bible"), Path("/usr/lib")
    if reader is None or not (data / "bible.data").is_file():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            sys.exit("neither the command bible nor apt-get is here: this needs Debian, or a system of its kind")
        if subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, stdout=2, check=False).returncode:
            sys.exit(f"apt-get could not download {' and '.join(PACKAGES)}; its message is above")
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "unpacked")], check=True)
        reader, data = str(folder / "unpacked" / "usr" / "bin" / "bible"), folder / "unpacked" / "usr" / "lib"
    said = subprocess.run(
        [reader, "-p", f"{data}/", "-f", ALL], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    if said.returncode or not said.stdout:
        sys.exit(f"{reader} failed: {said.stderr.strip() or f'exit status {said.returncode}'}")
    return said.stdout.splitlines()


def main() -> None:
    """Write the file, unless it is there; print its name.

    Raises:
        SystemExit: something is missing, or the text is another one.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", metavar="FILE", type=Path, help="default: in the user's cache folder")
    file: Path = (parser.parse_args().to or kjv_file()).absolute()
    if not (file.is_file() and sha256_of(file) == KJV_SHA256):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            text = chapters(verses(Path(folder)))
        beside = file.with_name(f".{file.name}.new")
        write_whole(beside, text)
        if (found := sha256_of(beside)) != KJV_SHA256:
            beside.unlink()
            sys.exit(f"the text is not that of version 4.38 (sha256 {found[:12]}…, should be {KJV_SHA256[:12]}…)")
        os.replace(beside, file)
    print(file)


if __name__ == "__main__":
    main()
