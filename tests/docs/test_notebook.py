"""The notebook of the pages runs from beginning to end, and what it shows is what it computes."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.runs import ROOT

NOTEBOOK = ROOT / "docs" / "five_minutes.ipynb"


@pytest.fixture(scope="module")
def shown() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("notebook")  # it works anywhere, and writes where it is run
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def printed(notebook: Any) -> str:
    return "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []) if "text" in output
    )


def figures(notebook: Any, pattern: str) -> list[float]:
    found = [float(number.replace("−", "-")) for number in re.findall(pattern, printed(notebook))]
    assert found, f"the notebook prints nothing like {pattern}"
    return found


def test_its_cells_run_and_it_ends_with_a_lift(executed: Any, shown: Any) -> None:
    pearson, lift = r"Pearson ([−\d.]+) →", r"lift ([+−][\d.]+)"
    assert figures(executed, pearson) == pytest.approx(figures(shown, pearson), abs=2e-4)
    # a training of a hundred steps: processors that sum in another order end a little elsewhere
    assert figures(executed, lift) == pytest.approx(figures(shown, lift), abs=0.01)


def test_what_is_committed_was_executed_in_order(shown: Any) -> None:
    code = [cell for cell in shown.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not any(output.output_type == "error" for cell in code for output in cell.outputs)
    assert str(Path.home()) not in nbformat.writes(shown)
