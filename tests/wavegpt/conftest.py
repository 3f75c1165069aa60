"""A small text in a file, and the command line over it."""

import numpy as np
import pytest

WORDS = "small large dog cat house tree river stone bird cloud a the of in and is red green old new walks sees".split()


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Some hundred short documents."""
    rng = np.random.default_rng(7)
    documents = {" ".join(rng.choice(WORDS, int(rng.integers(4, 20)))) for _ in range(260)}
    file = tmp_path_factory.mktemp("corpus") / "text.txt"
    file.write_text("\n\n".join(sorted(documents)), encoding="utf-8")
    return str(file)


@pytest.fixture(scope="session")
def tiny(text_file: str) -> list[str]:
    """Options that make a configuration of `configs/wavegpt` train in a second."""
    return [
        f"--data.corpus={text_file}",
        "--data.vocab_size=270",
        "--data.context=16",
        "--data.batch_tokens=128",
        "--data.val_fraction=0.1",
        "--model.d_model=16",
        "--model.heads=2",
        "--trainer.accelerator=cpu",
        "--trainer.val_check_interval=2",
        "--trainer.log_every_n_steps=1",
    ]
