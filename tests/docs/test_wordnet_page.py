"""Python on the page about WordNet similarities prints what stands below it, beside a plain NLTK."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modulant.assets import WORDNET_ZIP
from modulant.lexicon import Lexicon
from tests.runs import ROOT

PAGE = (ROOT / "docs" / "howto" / "wordnet_similarities.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(python|text)\n(.*?)^```$", PAGE, flags=re.M | re.S)
CODE = [text for kind, text in BLOCKS if kind == "python"]


def run(code: str, nltk_data: Path) -> str:
    Lexicon.load()  # compiled by whoever comes first
    environment = os.environ | {"NLTK_DATA": str(nltk_data), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=nltk_data, env=environment
    ).stdout


@pytest.mark.slow
def test_its_code_prints_what_it_shows(tmp_path: Path) -> None:
    (tmp_path / "corpora").mkdir()
    shutil.copy(WORDNET_ZIP, tmp_path / "corpora" / "wordnet.zip")  # what nltk.download("wordnet") leaves
    shown = [text for kind, text in BLOCKS if kind == "text"]
    assert [kind for kind, _ in BLOCKS] == ["python", "text"] * len(shown)
    assert run("\n".join(CODE), tmp_path) == "".join(shown)


def test_neither_torch_nor_nltk_is_imported(tmp_path: Path) -> None:
    code = CODE[1] + "\nimport sys; print({'torch', 'lightning', 'nltk'} & set(sys.modules))"
    assert run(code, tmp_path).splitlines() == [BLOCKS[3][1].strip(), "set()"]


def test_its_counts_are_the_lexicons() -> None:
    lexicon = Lexicon.load()
    verbs = lexicon.pos == "v"
    roots = (lexicon.hypernym_starts[1:] == lexicon.hypernym_starts[:-1]) & verbs
    rows = np.arange(len(lexicon))
    odd = (lexicon.taxonomy.wup_similarity(rows, rows) != 1).sum()
    counts = [len(lexicon), int((lexicon.pos == "n").sum()), len(lexicon.lemmas), int(roots.sum()), int(odd)]
    assert [f"{count:,}" for count in counts] == ["117,659", "82,115", "206,978", "559", "1,862"]
    assert all(f"{count:,}" in PAGE for count in counts)
