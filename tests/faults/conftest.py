"""The fault suite: real processes, real kills, full disks; and the table of what was tried, survived and lost.

`make test` runs a few faults of each kind, `make test-faults` (FAULTS=all) the numbers that the table is about.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.runs import small_wordnet

ALL = os.environ.get("FAULTS") == "all"
TABLE_FILE = os.environ.get("FAULTS_TABLE")  # where `make test-faults` leaves the table too


def many(all_of_them: int, few: int) -> int:
    """How many faults to try: all of them under FAULTS=all, else a few."""
    return all_of_them if ALL else few


@dataclass
class _Row:
    tried: int = 0
    survived: int = 0
    note: str = ""


class Tally:
    """Counts faults by kind. A fault counts as tried before it is known what came of it."""

    def __init__(self) -> None:
        self.rows: dict[str, _Row] = {}

    def tried(self, kind: str, n: int = 1, note: str = "") -> None:
        row = self.rows.setdefault(kind, _Row())
        row.tried += n
        row.note = note or row.note

    def survived(self, kind: str, n: int = 1) -> None:
        self.rows[kind].survived += n

    def lines(self) -> list[str]:
        """The table, in Markdown."""
        cells = [
            (kind, str(row.tried), str(row.survived), str(row.tried - row.survived), row.note)
            for kind, row in self.rows.items()
        ]
        head = ("fault", "tried", "survived", "lost", "what was asked of it")
        widths = [max(len(line[i]) for line in (head, *cells)) for i in range(5)]
        rule = tuple("-" * width for width in widths)
        return [
            "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
            for line in (head, rule, *cells)
        ]


_TALLY = Tally()


@pytest.fixture(scope="session")
def tally() -> Tally:
    return _TALLY


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _TALLY.rows:
        return
    terminalreporter.section("faults")
    for line in _TALLY.lines():
        terminalreporter.write_line(line)
    if TABLE_FILE:
        Path(TABLE_FILE).write_text("\n".join(_TALLY.lines()) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 with random weights and `mini`'s vocabulary, small enough for runs of seconds."""
    folder = tmp_path_factory.mktemp("t5")
    import torch
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    from modulant.assets import MINI

    tokenizer = AutoTokenizer.from_pretrained(MINI)
    sizes: dict[str, Any] = {
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 16,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "num_heads": 2,
    }
    torch.manual_seed(0)
    config = T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **sizes)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def quick(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`fit` into the folder run, three epochs of the field on that T5, with everything that a run measures."""
    from modulant.lexicon import Lexicon

    wordnet = str(small_wordnet(tmp_path_factory.mktemp("nltk_data")))
    Lexicon.load(wordnet)
    return [
        "fit",
        "--config=field.yaml",
        f"--model.backbone={backbone}",
        f"--data.nltk_data={wordnet}",
        "--data.batch_size=8",
        "--trainer.max_epochs=3",
        "--trainer.check_val_every_n_epoch=1",
        "--trainer.log_every_n_steps=5",
        "--alpha_convergence.every_n_steps=3",
        "--relational.bootstrap=40",
        "--relational.baselines=false",
        "--report.figures=false",
        "--output=run",
    ]
