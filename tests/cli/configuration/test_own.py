"""A file of a user's own: refused, read without being executed, executed when it is trusted, kept with the run."""

import hashlib
from pathlib import Path

import pytest

from cli.configuration import own
from modulators import Modulator, Objective, load_modulated
from modulators import registry as known
from tests.cli.conftest import Call
from tests.runs import LEMMA, ROOT, process, tiny_backbone

SPIRAL = (ROOT / "docs" / "examples" / "spiral.py").read_text()
TELLS = "open('was-imported', 'w').close()\n"
NAMED = ("--model.modulator", "spiral.Spiral")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def quick(wordnet: str, backbone: str) -> list[str]:
    small = [f"--data.nltk_data={wordnet}", f"--model.backbone={backbone}", "--trainer.max_epochs=1"]
    none = ["--relational.baselines=false", "--relational.bootstrap=0", "--report.figures=false"]
    return ["--config", "field.yaml", *LEMMA, *small, *none]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is registered here is known nowhere else."""
    monkeypatch.setattr(known, "_REGISTERED", {})


def test_a_file_that_nobody_trusts_is_never_executed(call: Call, quick: list[str]) -> None:
    Path("spiral.py").write_text(TELLS + SPIRAL)
    said = call("fit", *quick, *NAMED)
    assert said.code == 1
    assert said.err.endswith("; if you trust spiral.py, which lies here, add --trust spiral.py\n")
    assert said.err.count("\n") == 1
    assert not Path("was-imported").exists()
    assert "--trust" not in call("fit", *quick, "--model.modulator", "elsewhere.Spiral").err


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (
            ["--model.modulator.turnn=1"],
            "error: --model.modulator.turnn is not a key; did you mean model.modulator.turn?\n",
        ),
        (["--model.modulator.turn=much"], "error: model.modulator.turn is much; it must be a number\n"),
        (["--model.modulator=spiral.Spirral"], "did you mean spiral.Spiral?\n"),
    ],
)
def test_its_constructor_is_read_before_anything_is_executed(
    call: Call, quick: list[str], more: list[str], line: str
) -> None:
    Path("spiral.py").write_text(TELLS + SPIRAL)
    said = call("fit", *quick, *NAMED, "--trust", "spiral.py", *more)
    assert said.code == 1
    assert said.err.endswith(line)
    assert not Path("was-imported").exists()


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("spiral.py", None, "--trust: spiral.py cannot be read (No such file or directory)"),
        ("spiral.txt", SPIRAL, "--trust: spiral.txt must be a Python file whose name is a plain word"),
        ("torch.py", SPIRAL, "--trust: torch.py has the name of a module that is installed; give it another"),
        ("spiral.py", "class Spiral(\n", "--trust: spiral.py, line 1: not Python ('(' was never closed)"),
        ("spiral.py", "x = 1\n", "--trust: spiral.py holds no subclass of modulators.Modulator"),
        ("spiral.py", f"{SPIRAL}\nraise RuntimeError('no')\n", f"line {SPIRAL.count(chr(10)) + 2}: RuntimeError: no"),
        ("spiral.py", SPIRAL.replace("class Spiral", "class FieldModulator"), "is the name of a shipped modulator"),
    ],
)
def test_what_is_wrong_with_a_file(call: Call, quick: list[str], name: str, text: str | None, line: str) -> None:
    if text is not None:
        Path(name).write_text(text)
    own = NAMED if "class FieldModulator" not in (text or "") else ()
    said = call("fit", *quick, *own, "--trust", name)
    assert said.code == 1
    assert line in said.err
    assert said.err.count("\n") == 1
    assert not Path("runs").exists()


BASE = "from modulators import Modulator\n\nclass Base(Modulator):\n    alphas = expert_names = None\n"
MIXIN = "class Mixin:\n    def terms(self, batch): ...\n"
LACKS = "error: --trust: bare.Bare is abstract, and cannot be built: it does not define "


@pytest.mark.parametrize(
    ("text", "lacks", "executed"),
    [
        (f"{BASE}class Bare(Base): ...\n", "_modulate, active_dims, parameter_groups\n", False),
        # what a class outside the file's own text adds is not known before it is executed
        (f"{MIXIN}{BASE}class Bare(Mixin, Base): ...\n", "_modulate, active_dims, parameter_groups\n", True),
    ],
)
def test_an_abstract_class_is_one_line(call: Call, quick: list[str], text: str, lacks: str, executed: bool) -> None:
    Path("bare.py").write_text(TELLS + text)
    said = call("fit", *quick, "--model.modulator=bare.Bare", "--trust", "bare.py")
    assert (said.code, said.err) == (1, LACKS + lacks)
    assert Path("was-imported").exists() == executed
    assert not Path("runs").exists()


def test_what_a_text_leaves_abstract() -> None:
    assert {kind.__name__: kind.__abstractmethods__ for kind in (Modulator, Objective)} == own.ABSTRACT
    text = SPIRAL.replace("class Spiral(Modulator)", "class Base(Modulator):\n    alphas = None\n\nclass Spiral(Base)")
    text += "\n\nclass Half(Spiral):\n    @property\n    @abstractmethod\n    def more(self): ...\n"
    found = own.classes([own.OwnFile(Path("spiral.py"), text.encode())])
    assert {name.rpartition(".")[2]: sorted(schema[own.LACKS]) for name, schema in found.items()} == {
        "Base": sorted(own.ABSTRACT["Modulator"] - {"alphas"}),
        "Spiral": [],
        "Half": ["more"],
    }


def test_through_a_run(call: Call, quick: list[str]) -> None:
    Path("spiral.py").write_text(SPIRAL)
    trust = ("--trust", "spiral.py")
    said = call("fit", *quick, *NAMED, *trust, "--model.modulator.turn=0.7", "--output=run")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("Spiral on ")
    assert Path("run/own/spiral.py").read_text() == SPIRAL
    assert Path("run/own/SHA256SUMS").read_text() == f"{hashlib.sha256(SPIRAL.encode()).hexdigest()}  spiral.py\n"

    # going on executes nothing of it, unless that is said again
    before = SPIRAL.replace("import torch\n", TELLS + "import torch\n", 1)
    Path("run/own/spiral.py").write_text(before)
    refused = call("fit", "--resume", "run", "--trainer.max_epochs=2")
    assert refused.code == 1
    assert refused.err.endswith("executed only if you name it again: --trust spiral.py, unchanged since then\n")
    Path("spiral.py").unlink()
    assert "again: --trust run/own/spiral.py\n" in call("fit", "--resume", "run").err
    assert not Path("was-imported").exists()
    Path("run/own/spiral.py").write_text(SPIRAL)

    # … and a file that is no longer the same is told, and both are kept
    changed = SPIRAL.replace("lerp(stream, turned, alpha", "lerp(stream, 1.0 * turned, alpha")
    Path("spiral.py").write_text(changed)
    assert "changed since; its copy is run/own/spiral.py\n" in call("fit", "--resume", "run").err
    said = call("fit", "--resume", "run", *trust, "--trainer.max_epochs=2")
    assert (said.code, said.err) == (0, "")
    assert "spiral.py has changed since this run was trained (its copy: run/own/spiral.py)\n" in said.out
    assert Path("run/own/spiral.py").read_text() == changed
    assert [file.read_text() for file in Path("run/own").glob("spiral_until_step_*.py")] == [SPIRAL]

    # what it leaves is loaded by its class, which is known here since it was trusted
    assert call("validate", "--resume", "run", *trust).code == 0
    model, _ = load_modulated("run/modulator")
    assert type(model.modulator).__name__ == "Spiral"
    assert model.modulator.init_args["turn"] == 0.7


@pytest.mark.slow
def test_with_two_processes(quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "spiral.py").write_text(SPIRAL)
    two = ["--config", "ddp.yaml", "--trainer.accelerator=cpu", "--trainer.devices=2", "--data.batch_size=8"]
    said = process("fit", *quick, *two, *NAMED, "--trust", "spiral.py", "--output=run", cwd=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    assert (tmp_path / "run" / "own" / "spiral.py").is_file()
