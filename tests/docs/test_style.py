"""The pages keep to their words, and a page that does not is caught; the results open with a table and a figure."""

import json
import re
from pathlib import Path

import pytest

from benchmarks.page import PAGE, Limit, limit_of, read_tables, render
from scripts import style
from scripts.figures.results import rows_of
from tests.runs import ROOT

RESULTS = sorted((ROOT / "docs" / "results").glob("*.md"))
LONG = "Word" + 34 * " word"

BAD = f"""\
# A page

A run goes on with the next batch, whoever started it.

```console
a command goes on with anything, in as many words as it likes {LONG}
```

Short. {LONG}

- {"Short sentences. " * 46}

The target was 0.5, and the ratio that was asked is met.
"""


def test_every_page_and_message_keeps_to_the_words() -> None:
    faults = [fault for file in (*style.pages(), *style.sources()) for fault in style.faults_of(file)]
    assert not faults, "\n".join(faults)


def test_each_fault_of_a_bad_page_is_named_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "bad.md"
    page.write_text(BAD)
    assert style.main([str(page)]) == 1
    lines = [line.removeprefix(f"{page}:") for line in capsys.readouterr().out.splitlines()]
    assert [line.partition(":")[0] for line in lines] == ["3", "3", "13", "9", "11"]
    for line, said in zip(lines, ("'goes on with'", "'whoever'", "a limit", "35 words", "93 words"), strict=True):
        assert said in line


def test_a_good_page_has_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "good.md"
    page.write_text("# A page\n\nA run resumes from the last checkpoint. `whoever goes on with` is code.\n")
    assert style.main([str(page)]) == 0
    assert capsys.readouterr().out == "style: no faults\n"


def test_limits_may_stand_in_the_benchmarks_alone(tmp_path: Path) -> None:
    for name, faults in (("benchmarks.md", 0), ("findings.md", 1)):
        (tmp_path / name).write_text("| what | ours | asked |\n")
        assert len(list(style.faults_of(tmp_path / name))) == faults


def test_a_notebook_is_read_in_its_markdown(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["It goes on ", "with it."]},
        {"cell_type": "code", "source": ["dealt"]},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
    assert len(list(style.faults_of(tmp_path / "a.ipynb"))) == 1


def test_messages_are_those_of_errors_and_options(tmp_path: Path) -> None:
    module = 'x = "dealt"\nraise ValueError(f"{x} is dealt")\nadd("--a", help="dealt out")\n'
    (tmp_path / "a.py").write_text(module)
    found = [fault.removeprefix(f"{tmp_path}/a.py:").partition(":")[0] for fault in style.faults_of(tmp_path / "a.py")]
    assert found == ["2", "3"]


@pytest.mark.parametrize("page", RESULTS, ids=lambda page: page.stem)
def test_a_page_of_results_opens_with_a_table_of_twelve_rows_and_a_figure(page: Path) -> None:
    """… before anything is folded; and every fold is closed."""
    text = page.read_text(encoding="utf-8")
    assert text.count('<details markdown="1">\n<summary>') == text.count("</details>") == text.count("<details")
    opening = text.partition("<details")[0]
    table = re.search(r"^(?:\|.*\n)+", opening, flags=re.MULTILINE)
    assert table is not None
    assert len(table[0].splitlines()) - 2 <= 12
    figure = re.search(r"^!\[.+\]\((.+)\)$", opening, flags=re.MULTILINE)
    assert figure is not None
    assert (page.parent / figure[1]).is_file()


def test_the_page_of_benchmarks_is_what_its_tables_give() -> None:
    """So `--only NAME` keeps what it does not measure, and summary and folds are current."""
    page = PAGE.read_text(encoding="utf-8")
    tables = read_tables(page)
    assert len(tables) == 15
    assert render(tables) == page


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ({"ratio": "0.87 [0.41, 1.33]", "asked": "<= 0.68"}, Limit("0.87 [0.41, 1.33]", "≤ 0.68", 0.87 / 0.68)),
        ({"ratio": "94,671 ×", "asked": "≥ 30,000 ×"}, Limit("94,671 ×", "≥ 30,000", 30_000 / 94_671)),
        ({"ours": "0.31 s", "ratio": "0.03 [0.02, 0.03]", "asked": "≤ 2 s"}, Limit("0.31 s", "≤ 2 s", 0.155)),
        ({"ours": "13.6 s, of which 13.2 s a processor", "asked": "<= 15 s"}, Limit("13.6 s", "≤ 15 s", 13.6 / 15)),
        ({"ours": "0.957", "plain": "0.349", "asked": "≥ 0.90, not met"}, Limit("0.957", "≥ 0.90", 0.90 / 0.957)),
    ],
)
def test_a_limit_is_of_the_ratio_or_of_what_has_its_unit(row: dict[str, str], limit: Limit) -> None:
    found = limit_of(row)
    assert found is not None
    assert found[:2] == limit[:2]
    assert found.share == pytest.approx(limit.share)
    assert found.met == (limit.share <= 1)


@pytest.mark.parametrize("row", [{"ours": "3", "asked": ""}, {"ours": "1 B", "asked": "39,008 B"}, {"ours": "3"}])
def test_what_has_no_bound_has_no_limit(row: dict[str, str]) -> None:
    assert limit_of(row) is None


def test_the_sums_of_the_faults_are_those_of_their_table() -> None:
    page = (ROOT / "docs" / "results" / "faults.md").read_text(encoding="utf-8")
    kinds = rows_of(page, "fault", "tried", "survived", "lost")
    tried, survived, lost = (sum(int(row[column]) for row in kinds) for column in (1, 2, 3))
    assert tried == survived + lost
    assert f"**{tried} faults tried, {lost} lost.**" in page
    assert sum(int(row[1]) for row in rows_of(page, "faults", "tried", "lost")) == tried
