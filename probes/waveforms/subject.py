"""What is measured: a wave model with its tokenizer, the same untrained, a RoPE baseline, and windows of text."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from datamodules.text.tokenizer import TOKENIZER, TextTokenizer
from modulant.reports.series import Series, read_metrics
from modulant.reports.wording import counted
from wavegpt import AnnealConfig, AttentionConfig, LossConfig, WaveConfig, WaveGPT
from wavegpt.embedding import WaveEmbedding
from wavegpt.export import CONFIG, load

LEAST = 40  # tokens of a window: spectra of fewer say nothing
_TOKENS = 8192  # that are read
_WINDOWS = (8, 64)
_SEED = 42  # of WaveLM, where no run says another
ARTEFACT = "wavegpt"  # folder of the model in a run's


@dataclass(frozen=True, eq=False)
class Subject:
    """A trained model.

    Attributes:
        name: as on the command line.
        model: in eval mode.
        tokenizer: its own.
        seed: of the initial weights.
        anneal: of the training, which an exported model no longer has; None where no run says it.
        tokens_per_step: of the training; None where no run says it.
        metrics: of the run, by name; empty without one.
    """

    name: str
    model: WaveGPT
    tokenizer: TextTokenizer
    seed: int = _SEED
    anneal: AnnealConfig | None = None
    tokens_per_step: int | None = None
    metrics: dict[str, Series] = field(default_factory=dict)

    @property
    def ranks(self) -> Tensor:
        """Frequency ranks of the tokens; of a tokenizer without counts the embedding's, or ids."""
        if self.tokenizer.counts is not None:
            return torch.from_numpy(self.tokenizer.ranks)
        embedding = self.model.embedding
        return embedding.ranks if isinstance(embedding, WaveEmbedding) else torch.arange(self.tokenizer.vocab_size)

    def untrained(self, config: WaveConfig | None = None) -> WaveGPT:
        """The weights that training began with; of another configuration those of the same seed."""
        config = config or self._config_at_start()
        embedding = self.model.embedding
        ranks = embedding.ranks if isinstance(embedding, WaveEmbedding) else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            made = WaveGPT(config, ranks)
        if ranks is not None and isinstance(made.embedding, WaveEmbedding):
            made.embedding.ranks.copy_(ranks)  # a shuffled mass would be shuffled twice
            made.embedding._rotate()
        return made.to(next(self.model.parameters()).dtype).eval()

    def _config_at_start(self) -> WaveConfig:
        """With the annealing, whose table takes draws of its own."""
        config = self.model.config
        if self.anneal is None or config.embedding.kind != "wave":
            return config
        return replace(config, embedding=replace(config.embedding, anneal=self.anneal))

    def rope(self) -> WaveGPT | None:
        """The same model with rotary positions, untrained; None where a head has an odd width."""
        config = self._config_at_start()
        if config.head_dim % 2:
            return None
        attention = AttentionConfig(kind="rope", rope_base=config.attention.rope_base)
        return self.untrained(replace(config, attention=attention, loss=LossConfig()))


def open_subject(name: str, option: str = "") -> Subject:
    """A run of WaveLM, or the folder of a model.

    Args:
        name: of a run's folder, or of its wavegpt/.
        option: that named it, for errors.

    Raises:
        ValueError: there is no such model, or no tokenizer beside it.
    """
    folder, option = Path(name).expanduser(), option and f"{option}: "
    place = next((place for place in (folder, folder / ARTEFACT) if (place / CONFIG).is_file()), None)
    if place is None:
        what = "no wave model" if folder.is_dir() else "no folder"
        raise ValueError(f"{option}{name} is {what}; name a run of WaveLM that has ended, or the {ARTEFACT}/ in it")
    model = load(place).float()
    if not (place / TOKENIZER).is_file():
        raise ValueError(f"{option}{place} holds no {TOKENIZER}; copy the tokenizer's files to the model's")
    tokenizer = TextTokenizer.load(place)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"{option}{place} holds a tokenizer of {tokenizer.vocab_size} ids, and the model has "
            f"{model.config.vocab_size}; it needs the one that it was trained with"
        )
    run = folder if place is not folder else place.resolve().parent
    return Subject(name, model, tokenizer, **_run(run))


def _run(folder: Path) -> dict[str, Any]:
    """What a run's folder says of the training; nothing where it is none, or is damaged."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        about, trainer = config["model"]["init_args"], config["trainer"]
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        steps = int(trainer.get("accumulate_grad_batches") or 1) * int(report["environment"]["devices"])
        return {
            "seed": int(about["seed"]),
            "anneal": AnnealConfig(**about["embedding"]["anneal"]),
            "tokens_per_step": steps * int(report["data"]["batch_tokens"]),
            "metrics": read_metrics(folder / "metrics.csv"),
        }
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return {}


@dataclass(frozen=True, eq=False)
class Windows:
    """Text as the model was trained on it.

    Attributes:
        ids: (windows, context).
        what: a description.
    """

    ids: Tensor
    what: str


def windows_of(subject: Subject, texts: list[str], what: str) -> Windows:
    """Texts one after another, with the mark between documents, in windows as long as the context.

    Raises:
        ValueError: a context or texts of too few tokens.
    """
    T, end = subject.model.config.context, subject.tokenizer.end
    if T < LEAST:
        raise ValueError(f"{subject.name!r} has a context of {T} tokens; spectra need at least {LEAST}")
    count = max(_WINDOWS[0], min(_WINDOWS[1], _TOKENS // T))
    ids: list[int] = []
    for text in texts:
        ids += [end, *map(int, subject.tokenizer.encode(text))]
        if len(ids) >= count * T:
            break
    count = min(count, len(ids) // T)
    if not count:
        raise ValueError(f"--texts: {len(ids)} tokens, and a window of the model has {T}; give a longer text")
    found = torch.tensor(ids[: count * T]).reshape(count, T)
    return Windows(found, f"{what}, {counted(count, 'window')} of {T} tokens")


def shown(tokenizer: TextTokenizer, token: int) -> str:
    """A token as text in one line: marks for what is not seen, bytes for half a character."""
    if token == tokenizer.end:
        return "[end]"
    text = tokenizer.decode([token])
    if "\ufffd" in text:
        return tokenizer.decode_bytes([token]).hex(" ")
    return "".join(c if c.isprintable() else {"\n": "⏎", "\t": "⇥"}.get(c, "·") for c in text).replace(" ", "␣")
