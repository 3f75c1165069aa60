"""Kill −9 at any moment, then `--resume`: the end is that of a run that was never stopped, to the bit.

Compared are the last checkpoint (weights, optimizer, schedule, callbacks, position in the data) and every figure of
metrics.csv. Left out are clocks, and Lightning's own counters of how it came to where it is.
"""

import random
import time
from pathlib import Path

import pytest

from tests.faults.conftest import ALL, Tally, many
from tests.faults.processes import differences, figures_of, started, state_of

# Name, options, number of processes. 23 steps an epoch with one process, 12 with two; 8 with gradients of 3 batches.
WAYS: dict[str, tuple[tuple[str, ...], int]] = {
    "mid-epoch": (("--checkpoint.every_n_train_steps=4",), 1),
    "an epoch's last step": (("--checkpoint.every_n_train_steps=23",), 1),
    "epochs only": ((), 1),
    "an epoch without evaluation": (("--trainer.check_val_every_n_epoch=2",), 1),
    "accumulated gradients": (("--checkpoint.every_n_train_steps=2", "--trainer.accumulate_grad_batches=3"), 1),
    "two workers": (("--checkpoint.every_n_train_steps=5", "--data.num_workers=2"), 1),
    "validation in mid-epoch": (("--checkpoint.every_n_train_steps=3", "--trainer.val_check_interval=7"), 1),
    "two processes": (("--checkpoint.every_n_train_steps=4",), 2),
}
KIND = "kill −9 of a run, at random moments"


@pytest.mark.parametrize("name", WAYS if ALL else ["two processes", pytest.param("mid-epoch", marks=pytest.mark.slow)])
def test_kill_and_resume(name: str, quick: list[str], tmp_path: Path, tally: Tally) -> None:
    way, processes = WAYS[name]
    argv = [*quick, *way]
    rng = random.Random(name)
    began = time.monotonic()
    with started(tmp_path / "whole", *argv, processes=processes) as run:
        assert run.wait() == [0] * processes, run.err
    duration = time.monotonic() - began
    whole, figures = state_of(tmp_path / "whole" / "run"), figures_of(tmp_path / "whole" / "run")

    for i in range(many(6, 1)):
        kills = 1 + i % 2
        tally.tried(
            KIND, kills, note="--resume ends with the same weights, optimizer, callbacks and figures, to the bit"
        )
        folder, line = tmp_path / str(i), argv
        with started(folder, *line, processes=processes) as run:
            time.sleep(rng.uniform(0.1, duration))
            run.kill()
            run.wait()
        if kills == 2:  # and once more, soon after it has gone on
            line = ["fit", "--resume=run"] if any((folder / "run/checkpoints").glob("*.ckpt")) else argv
            with started(folder, *line, processes=processes) as run:
                time.sleep(rng.uniform(0.1, duration / 2))
                run.kill()
                run.wait()
        line = ["fit", "--resume=run"] if any((folder / "run/checkpoints").glob("*.ckpt")) else argv
        with started(folder, *line, processes=processes) as run:
            assert run.wait() == [0] * processes, run.err
        assert list(differences(whole, state_of(folder / "run"))) == []
        assert list(differences(figures, figures_of(folder / "run"))) == []
        tally.survived(KIND, kills)
