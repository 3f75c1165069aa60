"""A section is found by its name, and measured from there. No time is asserted."""

import pytest

from benchmarks.__main__ import main
from benchmarks.page import TITLES, file_of


def test_each_section_has_one_file() -> None:
    for name in TITLES:
        assert "\ndef run(quick: bool = False) -> " in file_of(name).read_text(encoding="utf-8"), name


def test_a_section_is_measured_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "pentachora", "--quick"]) == 0
    assert capsys.readouterr().out.startswith("== pentachora\n| what | ours | plain |")
