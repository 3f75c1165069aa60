"""Ten thousand steps with twenty kills: nothing is lost, and memory stays where it is."""

import json
import random
import time
from pathlib import Path

import pytest

from callbacks import newest_checkpoint
from callbacks.checkpoint_files import load_verified
from tests.faults.conftest import Tally, many
from tests.faults.processes import differences, figures_of, started, state_of

KIND = "kill −9 in a long run"


@pytest.mark.slow
def test_soak(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    kills = many(20, 2)
    steps = kills * 500
    argv = [*quick, f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--checkpoint.every_n_train_steps=50"]
    argv += ["--trainer.check_val_every_n_epoch=20", "--alpha_convergence.every_n_steps=25"]
    with started(tmp_path / "whole", *argv) as run:
        assert run.wait(1200) == [0], run.err
    rng = random.Random(0)
    folder, line = tmp_path / "killed", argv
    memory = []
    for i in range(kills):
        tally.tried(KIND)
        with started(folder, *line) as run:
            goal = i * 500 + rng.randrange(100, 400)
            while run.alive() and _step(folder / "run") < goal:
                memory.append(run.resident())
                time.sleep(0.05)
            assert run.alive(), run.err
            run.kill()
            run.wait()
        line = ["fit", "--resume=run"]
    with started(folder, *line) as run:
        assert run.wait(1200) == [0], run.err
    assert load_verified(newest_checkpoint(folder / "run"))["global_step"] == steps
    assert list(differences(state_of(tmp_path / "whole/run"), state_of(folder / "run"))) == []
    assert list(differences(figures_of(tmp_path / "whole/run"), figures_of(folder / "run"))) == []
    # The first process had a twentieth of the steps of the one that was never stopped.
    report = json.loads((tmp_path / "whole" / "run" / "report.json").read_text())
    peak = report["run"]["peak_resident_bytes"] if "peak_resident_bytes" in report["run"] else max(memory)
    growth = (peak - max(memory)) / 2**20
    note = f"{steps:,} steps, the same to the bit as without; {growth:+.0f} MiB at most against a process killed early"
    tally.tried(KIND, 0, note=note)
    tally.survived(KIND, kills)
    assert growth < 200


def _step(run: Path) -> int:
    names = [path.stem for path in (run / "checkpoints").glob("step_*.ckpt")]
    return max((int(name[5:]) for name in names), default=0)
