"""Answers of both models: shown side by side, and written to `predictions.jsonl` in the run folder."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn

from callbacks.interfaces import OfModulated
from callbacks.logs import announce
from callbacks.stopping.signals import current
from datamodules.arguments import STANDARD_INPUT, piped_prompts
from modulant.reports.wording import counted
from modulant.settings import Interval, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, checked
from modulant.storage import write_whole
from modulators.arguments import GenerationSettings
from modulators.comparison.conversation import Conversation
from modulators.comparison.generation import Comparison
from modulators.comparison.page import console, show

SHOWN = 40  # prompts on the screen; the file holds all
FILE = "predictions.jsonl"


class Talk(OfModulated):
    """Prompts the original and the modulated model, shows their answers, and writes them to the run folder.

    Args:
        alpha_scales: answer at each of these times the trained alpha; [0, 0.5, 1, 2] is a sweep. 0 is the original
            model.
        temperature: 0 is greedy; above, answers are sampled, the more freely the higher.
        top_p: of the sampled tokens, the smallest set whose probability reaches this.
        max_new_tokens: longest answer, in tokens.
        samples: answers to each prompt, where they are sampled.
        seed: of the samples; both models sample with the same random numbers.
        next_tokens: likeliest first tokens to show with their probabilities; 0: none.

    Raises:
        ValueError: a value out of its range.
    """

    @checked
    def __init__(
        self,
        alpha_scales: list[NonNegativeFloat] = [1.0],  # noqa: B006  # never changed
        temperature: NonNegativeFloat = 0.0,
        top_p: Annotated[float, Interval(exclusiveMinimum=0, maximum=1)] = 1.0,
        max_new_tokens: PositiveInt = 16,
        samples: PositiveInt = 1,
        seed: Seed = 42,
        next_tokens: NonNegativeInt = 0,
    ) -> None:
        scales = tuple(map(float, alpha_scales))
        self.settings = GenerationSettings(scales, temperature, top_p, max_new_tokens, samples, seed, next_tokens)
        self._conversation = False
        self._rows: list[dict[str, Any]] = []
        self._same = self._prompts = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.state.fn != TrainerFn.PREDICTING:
            return
        self._conversation = at_a_terminal(trainer)
        pl_module.generation = self.settings  # type: ignore[assignment]

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._rows, self._same, self._prompts = [], 0, 0
        self._checkpoint = checkpoint_of(trainer)
        kind = "adapter" if hasattr(pl_module, "adapter_name") else "modulator"
        self._name = "modulated" if self._checkpoint else f"untrained {kind}"

    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if not isinstance(outputs, Sequence) or not trainer.is_global_zero:
            return
        self._rows += [self._row(asked) for asked in outputs]
        self._same += sum(asked.original.text == asked.modulated.text for asked in outputs)
        a_prompt = len(self.settings.alpha_scales) * self.settings.samples
        shown = outputs if self._conversation else outputs[: max(0, SHOWN - self._prompts) * a_prompt]
        show(shown, console(), heading=not self._conversation, name=self._name)
        self._prompts += len(outputs) // a_prompt
        if self._conversation:  # whatever ends it, what was said is kept
            keep(trainer, self._rows)

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self._rows:
            return
        file = keep(trainer, self._rows, 0 if self._conversation else self._prompts - SHOWN)
        answers = counted(len(self._rows), "answer")
        without = "without modulation" if self._checkpoint else f"without the {self._name}"
        announce(trainer, f"{answers}, {self._same} of them the same with and {without}: {file}")

    def _row(self, asked: Comparison) -> dict[str, Any]:
        row: dict[str, Any] = {
            "prompt": asked.prompt,
            "original": asked.original.text,
            "modulated": asked.modulated.text,
            "alpha_scale": asked.alpha_scale,
            "sample": asked.sample,
            "checkpoint": self._checkpoint,
            "settings": {key: value for key, value in asdict(self.settings).items() if key != "alpha_scales"},
        }
        for name, answer in (("original", asked.original), ("modulated", asked.modulated)):
            row[f"{name}_tokens"] = answer.tokens
            row[f"{name}_logprobs"] = [round(value, 6) for value in answer.logprobs]
            if answer.next:
                row[f"{name}_next"] = [[token, round(chance, 6)] for token, chance in answer.next]
        return row


def keep(trainer: pl.Trainer, rows: Sequence[Mapping[str, Any]], unseen: int = 0) -> Path:
    """Write answers to `predictions.jsonl` in the run folder, a row a line; say how many prompts were not shown."""
    file = Path(trainer.default_root_dir) / FILE
    write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if unseen > 0:
        announce(trainer, f"… and {counted(unseen, 'prompt')} more")
    return file


def checkpoint_of(trainer: pl.Trainer) -> str | None:
    """Name of the checkpoint that answers; None of untrained weights."""
    return Path(str(trainer.ckpt_path)).name if trainer.ckpt_path else None


def at_a_terminal(trainer: pl.Trainer, **hint: str) -> bool:
    """Whether a person at a terminal is to be asked; then the DataModule's prompts are what is typed.

    Args:
        hint: for `Conversation`.

    Raises:
        ValueError: several processes would ask.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if getattr(data, "prompts", None) != STANDARD_INPUT or piped_prompts() is not None:
        return False
    if trainer.world_size > 1:
        raise ValueError("data.prompts: one process alone can talk at a terminal; give --trainer.devices 1")
    data.prompts = Conversation(_immediate_signals, **hint)
    return True


@contextmanager
def _immediate_signals() -> Iterator[None]:
    """While a person is waited for, a signal ends the wait: there is nothing that it could leave half done."""
    signals = current()
    if signals is None:
        yield
        return
    with signals.immediate():
        yield
