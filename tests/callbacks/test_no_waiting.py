"""No step of a default run waits for the device: real runs, every place that would wait on a GPU, by step.

tests/gpu/ asks CUDA itself, which also sees a copy from the host's ordinary memory.
"""

import io
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.runs import LEMMA, SOURCE, main, small_wordnet, tiny_backbone
from tests.waits import Steps, Waits, with_callback

LOGS_EVERY = 10
EPOCHS = 2
NARROW = {"field.yaml": [], "lerp.yaml": ["--model.modulator.n_geometric_dims", "8"]}  # the tiny stream's width is 16

# Of the host's own tensors, on a GPU too: an optimizer counts its steps there, and the loader of the validation that
# comes next draws a seed.
ON_THE_HOST = {
    ("torch/optim", "adam.py"),
    ("torch/optim", "optimizer.py"),
    ("utilities/combined_loader.py", "_load_current_iterator"),
}
# Asked on a CPU alone: of token ids a GPU's embedding complains itself, and of the gradient's norm on a GPU a copy is
# read that has come in the meantime.
ON_A_CPU = {("modulators/lerp.py", "checked_token_ids"), ("stopping/divergence.py", "_judge")}
# What a step that logs waits for: α of all layers, once; the modulator's figures, once; then what is the host's
# already; and Lightning, for the loss.
OBSERVED = ("measures/modulator_health.py", "on_train_batch_end")
WHERE_IT_LOGS = {
    OBSERVED,
    ("callbacks/interfaces.py", "layer_alphas"),
    ("measures/alpha_convergence.py", "_figures"),
    ("metrics/alpha.py", "update"),
    ("metrics/alpha.py", "still"),
    ("metrics/alpha.py", "converged"),
    ("utilities/apply_func.py", "to_item"),
}
THE_BAR = ("reporting/progress.py", "shown_figures")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("waits")
    words = ["--data.nltk_data", str(small_wordnet(folder / "nltk")), "--data.batch_size", "8"]
    words += ["--model.backbone", tiny_backbone(folder / "backbone"), "--trainer.max_epochs", str(EPOCHS)]
    words += ["--alpha_convergence.window", "3", "--alpha_convergence.tolerance", "1"]  # full and still before the end
    words += ["--modulator_health.every_n_steps", str(LOGS_EVERY)]
    return [
        *words,
        "--relational.bootstrap",
        "0",
        "--relational.baselines",
        "false",
        "--report.figures",
        "false",
        "--output",
    ]


@pytest.mark.parametrize("objective", ["lemma", "relational"])
@pytest.mark.parametrize("config", ["field.yaml", "lerp.yaml"])
def test_no_step_waits(
    config: str, objective: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())  # with a progress bar
    monkeypatch.setenv("TERM", "xterm-256color")
    steps, began = Steps(), time.monotonic()
    with with_callback(steps):
        overlays = () if objective == "relational" else SOURCE if config == "field.yaml" else LEMMA
        main()(["fit", "--config", config, *overlays, *words, str(tmp_path / "run"), *NARROW[config]])
    seconds, waits = time.monotonic() - began, steps.waits
    assert steps.seen == list(range(EPOCHS * 23))  # 180 entries, 8 a batch
    logging = [step for step in steps.seen if (step + 1) % LOGS_EVERY == 0]
    quiet = [step for step in steps.seen if step not in (0, *logging)]
    assert waits.places(0) - {THE_BAR} - ON_A_CPU - ON_THE_HOST == {OBSERVED}  # the modulator's start
    assert waits.places(*quiet) - {THE_BAR} - ON_A_CPU - ON_THE_HOST == set()
    assert waits.places(*logging) - {THE_BAR} - ON_A_CPU - ON_THE_HOST == WHERE_IT_LOGS
    # of those, what a GPU is waited for: α, the modulator's figures, the loss, and of the relation its four terms
    losses = 1 if objective == "lemma" else 5
    for step in logging:
        assert waits.found[step][OBSERVED] == 1
        assert waits.found[step]["callbacks/interfaces.py", "layer_alphas"] == 1
        assert waits.found[step]["utilities/apply_func.py", "to_item"] == losses
    drawn = sum(found[THE_BAR] for found in waits.found.values())
    assert 0 < drawn <= 2 * 2 * (seconds + 1)  # two figures, twice a second


def test_what_waits_is_found() -> None:
    waits, some = Waits(), torch.arange(3.0)
    waits.step = 0
    asked = [
        lambda: some[0].item(),
        lambda: bool(some.any()),
        lambda: float(some.sum()),
        lambda: some.tolist(),
        lambda: some.cpu(),
        lambda: some.to("cpu"),
        lambda: some.numpy(),
        lambda: some.nonzero(),
        lambda: some[some > 1],
        lambda: torch.equal(some, some),
        lambda: some.unique(),
        lambda: some.masked_select(some > 1),
        lambda: torch.tensor(1.0, device="cpu"),
    ]
    with waits:
        for i, ask in enumerate(asked):
            ask()
            assert waits.found[0].total() >= i + 1, f"{i} was not found"
            waits.found[0][("", "")] += i + 1 - waits.found[0].total()  # some ask twice
        before = waits.found[0].total()
        _ = (some * 2).sum().clamp(min=0), some[torch.tensor([0, 2])], torch.where(some > 1, some, 0.0)
    assert waits.found[0].total() == before
    assert waits.places(0) - {("", "")} == {("callbacks/test_no_waiting.py", "<lambda>")}
