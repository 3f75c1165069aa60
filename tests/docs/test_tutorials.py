"""The notebooks of the pages run from beginning to end, show what they compute, and their text says what they show."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from modulant.lexicon import Lexicon
from tests.runs import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))
NUMBER = re.compile(r"[+−-]?\d+\.\d+")

pytestmark = pytest.mark.timeout(900)  # a minute of one free core, as the pages say

_executed: dict[str, str] = {}


def executed(name: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a notebook prints, executed once, in a folder that holds nothing else."""
    if name not in _executed:
        Lexicon.load()  # compiled by whoever comes first, which says so
        notebook = nbformat.read(ROOT / "docs" / "tutorials" / f"{name}.ipynb", as_version=4)
        folder = {"metadata": {"path": str(tmp_path_factory.mktemp(name))}}
        NotebookClient(notebook, timeout=800, kernel_name="python3", resources=folder).execute()
        _executed[name] = printed(notebook)
    return _executed[name]


def printed(notebook: Any) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


def lift(text: str, label: str) -> tuple[float, float, float]:
    """The lift in the line that begins with a label, and the ends of its interval."""
    found = re.search(rf"^{re.escape(label)} .*?([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]$", text, flags=re.M)
    assert found, f"no line {label!r}"
    value, low, high = map(float, found.groups())
    assert low < value < high
    return value, low, high


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_shows_what_it_computes(path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    now, shown = executed(path.stem, tmp_path_factory), printed(nbformat.read(path, as_version=4))
    assert NUMBER.sub("#", now) == NUMBER.sub("#", shown)
    # some tens of steps of training: processors that sum in another order end a little elsewhere
    assert [*map(float, NUMBER.findall(now))] == pytest.approx([*map(float, NUMBER.findall(shown))], abs=0.01)


@pytest.mark.slow
def test_the_first_lift_is_the_taxonomys(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = executed("first_lift", tmp_path_factory)
    assert lift(text, "field             nouns")[1] > 0
    assert lift(text, "field − shuffled  nouns")[1] > 0
    assert lift(text, "shuffled WordNet  nouns")[2] < 0


@pytest.mark.slow
def test_a_random_encoder_too_shows_lifts(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = executed("own_encoder", tmp_path_factory)
    assert min(lift(text, line)[1] for line in ("all pairs", "held out", "held out, nouns")) > 0
    assert text.count("to the bit: True") == 2


@pytest.mark.slow
def test_the_claim_breaks_over_all_pairs_and_stands_over_nouns(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = executed("is_it_real", tmp_path_factory)
    claimed, nouns = lift(text, "held-out synsets, all pairs"), lift(text, "held-out synsets, pairs of two nouns")
    assert lift(text, "trained on parts of speech alone, all pairs")[1] > claimed[2]
    assert lift(text, "in a random T5, all pairs")[0] > claimed[0] / 2
    for control in ("trained on parts of speech alone", "trained on a shuffled WordNet", "in a random T5"):
        assert lift(text, f"{control}, two nouns")[2] < nouns[1]
    _, low, high = lift(text, "in a random T5, two nouns")
    assert low < 0 < high


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_committed_was_executed_in_order(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    outputs = [output for cell in code for output in cell.outputs]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" or output.get("name") == "stderr" for output in outputs)
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert str(Path.home()) not in nbformat.writes(notebook)
