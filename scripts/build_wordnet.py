"""Build modulant/assets/wordnet-3.0.zip, the WordNet that the project ships, from Debian's packages.

Debian's `wordnet-base` and `wordnet-sense-index` hold Princeton's WordNet 3.0 database file for file. NLTK needs one
more, `lexnames` (the names of the 45 lexicographer files), which is written here from the manual page lexnames(5WN).
The archive is deterministic: sorted names, one date, so its SHA-256 can be checked by anyone who builds it again:

    python scripts/build_wordnet.py                          # apt-get download, then build
    python scripts/build_wordnet.py --deb A.deb --deb B.deb  # from local packages
"""

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from modulant.assets import WORDNET_SHA256, WORDNET_ZIP

PACKAGES = ("wordnet-base", "wordnet-sense-index")

DATABASE = (
    "adj.exc adv.exc noun.exc verb.exc cntlist.rev data.adj data.adv data.noun data.verb "
    "index.adj index.adv index.noun index.verb index.sense"
).split()

LEXNAMES = (
    "adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition "
    "noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person "
    "noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state "
    "noun.substance noun.time verb.body verb.change verb.cognition verb.communication verb.competition "
    "verb.consumption verb.contact verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social "
    "verb.stative verb.weather adj.ppl"
).split()
SYNTACTIC_CATEGORY = {"noun": 1, "verb": 2, "adj": 3, "adv": 4}

NOTICE = """\
WordNet 3.0, Princeton University (https://wordnet.princeton.edu), as packaged by Debian: the database files of the
packages {packages}, unchanged. One file is added: `lexnames`, the table of the manual page lexnames(5WN).
Licence: see LICENSE in this folder; it must go with every copy.
"""


def lexnames() -> str:
    """The table NLTK reads: number, name and syntactic category of each lexicographer file."""
    lines = (f"{i:02d}\t{name}\t{SYNTACTIC_CATEGORY[name.split('.')[0]]}" for i, name in enumerate(LEXNAMES))
    return "\n".join(lines) + "\n"


def licence(data_file: str) -> str:
    """Princeton's licence, which heads every data file as numbered lines."""
    head = [re.match(r"^ {1,2}(\d+) (.*)$", line) for line in data_file.splitlines()[:29]]
    assert all(head), "the data file does not begin with the 29 numbered lines of WordNet's licence"
    return "\n".join(line.group(2).rstrip() for line in head if line) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deb", action="append", type=Path, help="a local package (repeat it); default: apt-get")
    parser.add_argument("--to", type=Path, default=WORDNET_ZIP, help="where the archive goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        debs = arguments.deb
        if not debs:
            subprocess.run(["apt-get", "download", *PACKAGES], cwd=folder, check=True)
            debs = sorted(Path(folder).glob("*.deb"))
        for deb in debs:
            subprocess.run(["dpkg-deb", "--extract", deb, folder], check=True)
        database = Path(folder) / "usr/share/wordnet"
        members = {name: (database / name).read_bytes() for name in DATABASE}
    members["lexnames"] = lexnames().encode()
    members["LICENSE"] = licence(members["data.adv"].decode()).encode()
    members["NOTICE"] = NOTICE.format(packages=" and ".join(PACKAGES)).encode()
    with zipfile.ZipFile(arguments.to, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(f"wordnet/{name}", date_time=(2006, 12, 1, 0, 0, 0))
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(info, members[name])
    digest = hashlib.sha256(arguments.to.read_bytes()).hexdigest()
    print(f"{arguments.to}: {arguments.to.stat().st_size / 1e6:.1f} MB, sha256 {digest}")
    if digest != WORDNET_SHA256:
        print("differs from modulant.assets.WORDNET_SHA256: another zlib compresses differently; compare the members")


if __name__ == "__main__":
    main()
