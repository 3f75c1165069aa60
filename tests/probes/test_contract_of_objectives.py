"""`probe.py contract` on an objective of a user's: the example passes, a broken one is told why."""

from pathlib import Path

import pytest

import probe

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "hypernyms.py"


def test_the_example_keeps_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["contract", str(EXAMPLE), "--init", "temperature=0.2"]) == 0
    assert "HypernymContrast: 4 of 4 checks hold" in capsys.readouterr().out


def test_a_broken_one_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "halved.py").write_text(
        "from modulators import Objective\n"
        "from modulators.training.objectives.base import Term\n"
        "class Halved(Objective):\n"
        "    def terms(self, batch):\n"
        "        return {'half': Term(batch.representations[: len(batch.synsets) // 2].square().mean())}\n"
    )
    assert probe.main(["contract", str(tmp_path / "halved.py")]) == 1
    assert "does_not_depend_on_the_order: the loss is" in capsys.readouterr().out


def test_an_argument_that_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["contract", str(EXAMPLE), "--init", "temprature=1"]) == 2
    assert "HypernymContrast has no argument temprature; did you mean temperature?" in capsys.readouterr().err
