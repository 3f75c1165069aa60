"""A folder to run in, a small WordNet, and the command line as a function."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.runs import main, small_wordnet


class Said(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Said]


@pytest.fixture(scope="session")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    from modulant.lexicon import Lexicon

    folder = str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))
    Lexicon.load(folder)  # compiled here, so that no run says so
    return folder


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    """``call("fit", "--config", …)`` in an empty folder, as `python train.py fit --config …` would do it."""
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> Said:
        capfd.readouterr()
        code = 0
        try:
            main()(list(argv))
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
        return Said(code, *capfd.readouterr())

    return run
