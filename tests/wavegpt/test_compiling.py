"""torch.compile: each arm is one graph a length, and learns what it learns without."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import main

ROOT = Path(__file__).resolve().parents[2]
# Arms whose training pass is code of its own.
FORMS = (
    *(
        "pure_wave_linear",
        "baseline",
        "source/full_physics",
        "source/pure_wave_exp",
        "fixed-sum",
        "fixed-energy",
        "integrated-softmax",
    ),
    *("source-softmax", "naive-softmax", "matmul-sum", "cosine", "power_p-score", "factorised", "positions", "learned"),
)


@pytest.mark.parametrize(
    ("backend", "names"),
    [("aot_eager", ("wave",)), pytest.param("eager", FORMS, marks=pytest.mark.slow)],
    ids=["quick", "all"],
)
def test_an_arm_is_one_graph_a_length(backend: str, names: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.wavegpt.compiled_arms", backend, *names]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{len(names)} arms\n"), done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)  # code is generated
def test_a_compiled_fit_learns_what_an_eager_one_does(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an annealing, whose ratio each step changes, and terms of the loss, which see inside."""
    argv = ["fit", "--config", "wavegpt/full_physics.yaml", *tiny, "--trainer.max_steps=4", "--report.figures=false"]
    argv += ["--model.embedding.anneal.steps=9"]
    monkeypatch.chdir(tmp_path)
    main()([*argv, "--output=false"])
    command = [sys.executable, str(ROOT / "train.py"), *argv, "--model.compile=reduce-overhead"]
    done = subprocess.run([*command, "--output=reduce-overhead"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    found = {
        how: json.loads(Path(how, "report.json").read_text())["run"]["metrics"] for how in ("false", "reduce-overhead")
    }
    assert found["false"].keys() == found["reduce-overhead"].keys()
    for key in ("train/loss", "train/phase", "val/bits_per_byte", "val/bits_per_byte_annealed"):
        assert found["reduce-overhead"][key]["last"] == pytest.approx(found["false"][key]["last"], rel=1e-4), key
