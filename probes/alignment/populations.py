"""Which synsets a probe measures: the distinct ones of the entries of a tokenizer, split as a training would split.

A run's own configuration says which tokenizer, WordNet and split it had, so that what it held out is held out here.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulant.lexicon.entries import Matching, SplitBy
from modulant.reports.wording import counted

if TYPE_CHECKING:
    from datamodules import WordNetDataModule

_OF_DATA = ("val_fraction", "seed", "matching", "nltk_data", "split", "test_fraction")  # keys of a configuration's data
# Their blocks are in checkpoints alone.
_WITHOUT_ARTEFACT = ("modulators.TunedCausalLM", "modulators.TunedEncoder", "modulators.TunedT5")
MIN_SYNSETS = 5  # a pentachoron has five corners


@dataclass(frozen=True)
class Split:
    """What makes a population.

    Attributes:
        tokenizer: whose single tokens choose the entries: ``mini``, a folder, or a hub id.
        val_fraction, test_fraction, seed: of the entries that are held out.
        matching: as `datamodules.WordNetDataModule` has it.
        nltk_data: a folder with a WordNet other than the bundled one.
        split: what is held out whole; of a run or an artefact that does not say it, ``entry``.
    """

    tokenizer: str = "mini"
    val_fraction: float = 0.1
    seed: int = 42
    matching: Matching = "single_token"
    nltk_data: str | None = None
    split: SplitBy = "synset"
    test_fraction: float = 0.0


def add_population_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of a probe that measures an encoder over a population."""
    parser.add_argument(
        "--prefix", metavar="TEXT", help="before every definition (default: 'summarize: ' for a T5, nothing for others)"
    )
    parser.add_argument(
        "--population",
        metavar="TOKENIZER",
        help="whose single-token lemmas are measured: mini, a folder or a hub id (default: the run's own, else mini)",
    )
    parser.add_argument(
        "--nltk-data",
        metavar="DIR",
        dest="nltk_data",
        help="a folder with a WordNet to read instead of the bundled one (default: the run's own)",
    )


def split_for(name: str, population: str | None, nltk_data: str | None) -> Split:
    """The split of the run that `name` is or is part of, else the default one; `population` and `nltk_data` win.

    Raises:
        ValueError: the run's configuration or artefact cannot be read, or it is a run that leaves no artefact.
    """
    folder = Path(name).expanduser()
    run = next((place for place in (folder, folder.parent) if (place / "config.yaml").is_file()), None)
    split = Split()
    artefact = any((folder / name).is_file() for name in ("modulator_config.json", "adapter_config.json"))
    if artefact or (folder / "config.yaml").is_file():
        split = _of_run(run) if run is not None else _of_artefact(folder)
    if population is not None:
        split = replace(split, tokenizer=population)
    return replace(split, nltk_data=nltk_data) if nltk_data is not None else split


def load_data(split: Split) -> "WordNetDataModule":
    """The DataModule of a split, set up: its population, distances, chains and categories are what a run measures.

    Raises:
        ValueError: no such tokenizer or WordNet, or fewer than five synsets.
    """
    from datamodules import WordNetDataModule

    try:
        data = WordNetDataModule(
            split.tokenizer,
            val_fraction=split.val_fraction,
            matching=split.matching,
            seed=split.seed,
            nltk_data=split.nltk_data,
            split=split.split,
            test_fraction=split.test_fraction,
        )
        data.setup()
    except ValueError as error:  # under the names that a configuration has for these
        text = str(error).replace("model.backbone", "--population").replace("data.nltk_data", "--nltk-data")
        raise ValueError(text) from error
    if (n := len(data.population)) < MIN_SYNSETS:
        raise ValueError(
            f"--population: {split.tokenizer} has {counted(n, 'synset')} in this WordNet; a "
            f"pentachoron needs {MIN_SYNSETS}, and a correlation many more"
        )
    return data


def definitions(data: "WordNetDataModule") -> list[str]:
    """The population's definitions, in its order."""
    texts = data.corpus.lexicon.definitions
    return [texts[int(row)] for row in data.population.synsets]


def describe(split: Split, data: "WordNetDataModule") -> dict[str, Any]:
    """What a report says of a population."""
    n = len(data.population)
    return asdict(split) | {
        "wordnet": data.corpus.lexicon.version,
        "entries": len(data.entries),
        "synsets": n,
        "held_out_synsets": int(data.population.held_out.sum()),
        "pairs": n * (n - 1) // 2,
    }


def _of_run(run: Path) -> Split:
    import yaml

    file = run / "config.yaml"
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        data = config["data"].get("init_args", config["data"])
        learns, model = config["model"].get("class_path"), config["model"].get("init_args", config["model"])
        known: dict[str, Any] = {"split": "entry"} | {key: data[key] for key in _OF_DATA if key in data}
        split = Split(tokenizer=str(data.get("backbone") or model.get("backbone") or "mini"), **known)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise ValueError(f"{file}: no configuration of a run ({reason}); train.py writes one") from error
    if learns in _WITHOUT_ARTEFACT:
        raise ValueError(
            f"--model: {run} is a run of {learns}, which leaves no artefact to open: its report has what it measured; "
            f"people's ratings it measures at its end: python train.py fit --resume {run} --similarity.files gensim"
        )
    return split


def _of_artefact(folder: Path) -> Split:
    import json

    file = folder / "modulator_config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return Split(tokenizer=str(config["backbone"]), split=config.get("split") or "entry")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: no configuration of a modulator ({error!r})") from error
