"""Python on the pages runs as it stands there, offline, on `mini`; files and functions that they name exist."""

import re
from pathlib import Path
from typing import Any

import pytest

from modulant.backbones.t5 import load_config
from modulators import FieldModulator, save_modulator, stream_of

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "library.py"


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a run that a page may load, and nothing else: no configs/, no checkout."""
    monkeypatch.chdir(tmp_path)
    save_modulator(FieldModulator(stream_of(load_config("mini"))), "runs/field/version_0/modulator", "mini", [0, 1])


def test_blocks_of_the_readme(somewhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that measures a lift takes a minute: it is the example below, which a slow test runs."""
    for number, block in enumerate(blocks(ROOT / "README.md")):
        if "relational_lift(" in block:
            assert block == EXAMPLE.read_text(encoding="utf-8")
            continue
        exec(compile(block, f"README.md, block {number}", "exec"), {})
        assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:[\w.]+/)+[\w.]*)`", text)
    missing = [path for path in named if (ROOT / path.split("/")[0]).exists() and not (ROOT / path).exists()]
    linked = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", text)
    missing += [path for path in linked if not ((ROOT / page).parent / path).exists()]
    named += linked
    assert named
    assert not missing


def test_functions_that_the_path_of_a_figure_names_exist() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ `(\w+)` \| ([\w./]+) \|", page, flags=re.M)
    gone = [row for row in rows if not re.search(rf"^ *def {row[0]}\(", (ROOT / row[1]).read_text(), flags=re.M)]
    assert rows
    assert not gone


@pytest.mark.slow
def test_the_example_ends_with_a_lift(somewhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    """Untrained at α = 0.1, the field lowers the correlation, and the interval is of a real size."""
    found: dict[str, Any] = {}
    exec(compile(EXAMPLE.read_text(), EXAMPLE.name, "exec"), found)
    lift = found["lift"]
    assert lift["pearson_lift_low"] < lift["pearson_lift"] < lift["pearson_lift_high"] < 0
    assert lift["pairs"] == 37_779_778
    assert lift["original/pearson"] == pytest.approx(0.2825, abs=1e-4)
    assert capsys.readouterr().out.splitlines()[-1].count(",") == 1
    lines = [line for line in EXAMPLE.read_text().splitlines() if line]
    assert len(lines) <= 11
