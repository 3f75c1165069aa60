"""What every test may rely on: no network, one thread, no GPU, fixed seeds, a cache folder that lasts for one session.

With TEST_DEVICE=cuda (`make test-gpu`) a GPU is seen: for the tests marked `gpu`, which are for nothing else. Those
marked `weights` run where TEST_WEIGHTS names a folder of pretrained weights (`make test-weights`).

The environment is set before anything imports torch, transformers or our own packages, and processes that a test starts
inherit it. Nothing of ours is imported at the top here: jaxtyping must see each import first.
"""

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    MPLBACKEND="Agg",
    WANDB_MODE="offline",
    **({} if os.environ.get("TEST_DEVICE") == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}),
)

import hypothesis
import numpy as np
import pytest
import torch

hypothesis.settings.register_profile("house", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("house")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # pytest-xdist's workers inherit the folder of the process that started them.
    if not hasattr(config, "workerinput"):
        os.environ["MODULANT_CACHE"] = tempfile.mkdtemp(prefix="modulant-tests-")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {}
    if os.environ.get("TEST_DEVICE") != "cuda":
        lacking["gpu"] = pytest.mark.skip(reason="needs a GPU: make test-gpu")
    if "TEST_WEIGHTS" not in os.environ:
        lacking["weights"] = pytest.mark.skip(reason="needs weights to be downloaded: make test-weights")
    for item in items:
        for marker, skip in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop("MODULANT_CACHE"), ignore_errors=True)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    # Left by a run of an earlier test: Lightning's processes would be seeded by it, and one process alone would not.
    os.environ.pop("PL_GLOBAL_SEED", None)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT has its default handler; a script's background jobs start with SIGINT ignored, which children inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def field_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real run: the field modulator on a small WordNet, one epoch, resumed for a second, all figures.

    Copy it before changing it.
    """
    from tests.runs import main, small_wordnet, tiny_backbone

    folder = tmp_path_factory.mktemp("field")
    data = ["--data.nltk_data", str(small_wordnet(folder / "nltk_data"))]
    common = ["fit", "--config", "field.yaml", *data, "--model.backbone", tiny_backbone(folder / "backbone")]
    common += ["--trainer.log_every_n_steps", "1", "--alpha_convergence.every_n_steps", "1"]
    run = folder / "run"
    main()([*common, "--trainer.max_epochs", "1", "--output", str(run), "--report.figures=false"])
    main()([*common, "--trainer.max_epochs", "2", "--resume", str(run), "--report.figures=true"])
    return run
