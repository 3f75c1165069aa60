"""Ten thousand steps with twenty kills: nothing is lost, and memory stays where it is."""

import random
import time
from pathlib import Path

import pytest

from callbacks import newest_checkpoint
from callbacks.saving.files import load_verified
from tests.faults.conftest import Tally, many
from tests.faults.processes import differences, figures_of, started, state_of

KIND = "kill −9 in a long run"


@pytest.mark.slow
def test_soak(quick: list[str], tmp_path: Path, tally: Tally) -> None:
    kills = many(20, 2)
    steps = kills * 500
    argv = [*quick, f"--trainer.max_steps={steps}", "--trainer.max_epochs=-1", "--checkpoint.every_n_train_steps=50"]
    # of random weights the cloud drifts far, and that would end it
    argv += ["--trainer.check_val_every_n_epoch=20", "--trainer.log_every_n_steps=50", "--pentachoron.stop=false"]
    rng = random.Random(0)
    folder, line = tmp_path / "killed", argv
    memory: list[float] = []
    with started(tmp_path / "whole", *argv) as whole:  # beside the other
        for i in range(kills):
            tally.tried(KIND)
            goal = i * 500 + rng.randrange(100, 400)
            with started(folder, *line) as run:
                while _step(folder / "run") < goal:
                    assert run.resident() > 0, run.err  # 0: it has ended
                    memory.append(whole.resident())
                    time.sleep(0.05)
                run.kill()
                run.wait()
            line = ["fit", "--resume=run"]
        with started(folder, *line) as run:
            assert run.wait(600) == [0], run.err
        assert whole.wait(600) == [0], whole.err
    memory = [size for size in memory if size > 0]  # until it had ended
    assert load_verified(newest_checkpoint(folder / "run"))["global_step"] == steps
    assert list(differences(state_of(tmp_path / "whole/run"), state_of(folder / "run"))) == []
    assert list(differences(figures_of(tmp_path / "whole/run"), figures_of(folder / "run"))) == []
    tenth = len(memory) // 10
    early, late = max(memory[tenth : 3 * tenth]), max(memory[-2 * tenth :])
    note = f"{steps:,} steps, the same to the bit as without; memory {early:.0f} MiB early, {late:.0f} MiB at the end"
    tally.tried(KIND, 0, note=note)
    tally.survived(KIND, kills)
    assert late < 1.2 * early


def _step(run: Path) -> int:
    names = [path.stem for path in (run / "checkpoints").glob("step_*.ckpt")]
    return max((int(name[5:]) for name in names), default=0)
