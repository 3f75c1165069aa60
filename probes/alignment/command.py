"""How closely an encoder's cosines follow WordNet, over every pair of a population, beside the same encoder untrained.

Any encoder will do: a run of train.py, a T5, a BERT. What a figure of a pretrained one is worth is seen against its own
architecture with random weights, and against its own input embeddings without any layer.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulant.reports.populations import names_of_parts, with_parts_of_speech
from modulant.reports.wording import number, short
from probes.alignment.populations import add_population_arguments, definitions, describe, load_data, split_for
from probes.pages import folder_name, leave, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from datamodules import WordNetDataModule

DESCRIPTION = """\
Relational figures of an encoder over every pair of a population of synsets: Pearson, Spearman, gradient, mean
cosine, bands, the three populations, and the CV of its pentachora beside a Gaussian null. The same for its input
embeddings, and for the same architecture with random weights."""

EXAMPLES = """\
examples:
  python probe.py alignment --model mini
  python probe.py alignment --model runs/field/version_0 --output runs/probes/field
  python probe.py alignment --model /path/to/bert --population google-t5/t5-small --prefix "" """

BAND = (0.20, 0.23)  # of CV: the source calls it universal
CHAIN_DEPTH = 8
_ROWS = (
    ("Spearman, all pairs", "spearman", 4),
    ("gradient (near − far)", "gradient", 4),
    ("mean cosine", "mean_cosine", 4),
    ("within a lexicographer category − all", "category/gap", 4),
    ("z of that against shuffled categories", "category/z", 1),
    ("cosine with the first hypernym", "chain/depth_1", 4),
    ("… two steps up", "chain/depth_2", 4),
    ("… four steps up", "chain/depth_4", 4),
    ("… eight steps up", "chain/depth_8", 4),
    ("pentachoron CV", "pentachoron/cv", 4),
    ("CV of its Gaussian null", "pentachoron/null_mean", 4),
    ("z against the null", "pentachoron/z", 1),
)

Figures = dict[str, float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", required=True, help="a run, its modulator/, mini, a folder in Hugging Face's layout, or a hub id"
    )
    add_population_arguments(parser)
    parser.add_argument(
        "--random",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the same architecture with random weights too",
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/probes/alignment_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write alignment.json, alignment.md and alignment.png, print the table."""

    def measure() -> Mapping[str, Any]:
        return measure_model(args.model, args.prefix, args.population, args.nltk_data, args.random)

    return leave("alignment", args.model, args.output, measure, as_page, bands_figure)


def measure_model(
    name: str, prefix: str | None, population: str | None, nltk_data: str | None, random: bool
) -> dict[str, Any]:
    """Everything that `alignment.json` holds.

    Raises:
        ValueError: no such encoder, tokenizer or WordNet, or too few synsets.
    """
    from probes.alignment.encoders import open_encoder, represent

    split = split_for(name, population, nltk_data)
    encoder = open_encoder(name, prefix)
    data = load_data(split)
    tokens = encoder.tokens(definitions(data))
    distances = data.path_distances()
    clouds: dict[str, Figures] = {}
    for cloud in encoder.clouds(random):
        points = represent(encoder, tokens, cloud)
        clouds[cloud] = relational(points, distances, data.population.part, data.parts_of_speech())
        clouds[cloud] |= _hierarchy(points, data) | _pentachora(points)
    return {
        "model": name,
        "architecture": encoder.config.model_type,
        "dimensions": points.shape[1],
        "prefix": encoder.form.prefix,
        "pooling": "mean over unpadded tokens, special tokens included, of the last hidden state",
        "tokens": {"mean": float(tokens.lengths.mean()), "max": int(tokens.lengths.max())},
        "population": describe(split, data),
        "pairs_in_band": _pairs_in_bands(distances),
        "clouds": clouds,
    }


def relational(points: "Tensor", distances: Any, part: Any, pos: Any = None) -> Figures:
    """`metrics.RelationalAlignment` over all pairs.

    Args:
        points: (P, D).
        distances: (P, P) bytes, WordNet path distances.
        part: (P,) parts of the split, 0 training, 1 validation, 2 test.
        pos: (P,) parts of speech, as WordNet's letters.
    """
    from modulant import metrics

    return _computed(metrics.RelationalAlignment(distances, part, pos=pos), points)


def _pentachora(points: "Tensor") -> Figures:
    """`metrics.PentachoronCV`, its keys under ``pentachoron/``."""
    from modulant import metrics

    return {f"pentachoron/{key}": value for key, value in _computed(metrics.PentachoronCV(), points).items()}


def _computed(metric: Any, points: "Tensor") -> Figures:
    """A metric's figures that are numbers: not its histograms."""
    metric.update(points)
    return {key: float(value) for key, value in metric.compute().items() if value.ndim == 0}


def _hierarchy(points: "Tensor", data: "WordNetDataModule") -> Figures:
    """Cosine along first-hypernym chains, and within lexicographer categories against the mean of all pairs."""
    import torch

    from modulant import metrics

    chain = metrics.chain_decay(points, torch.from_numpy(data.hypernym_chains(CHAIN_DEPTH)))
    found = {f"chain/depth_{depth}": float(cosine) for depth, cosine in enumerate(chain["cosine"], start=1)}
    clustering = metrics.category_clustering(points, torch.from_numpy(data.categories()[0]))
    return found | {f"category/{key}": float(clustering[key]) for key in ("within", "gap", "z")}


def _pairs_in_bands(distances: Any) -> dict[str, int]:
    import numpy as np

    from modulant.metrics import BANDS

    counts = np.zeros(256, dtype=np.int64)
    for row, some in enumerate(distances):
        counts += np.bincount(some[row + 1 :], minlength=256)
    similarity = 1 / (1 + np.arange(255))
    return {
        f"{low:.2f}_{high:.2f}": int(counts[:255][(similarity >= low) & ((similarity < high) | (high == 1.0))].sum())
        for low, high in BANDS
    }


def as_page(found: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    clouds: Mapping[str, Figures] = found["clouds"]
    population, names = found["population"], list(clouds)
    pairs = with_parts_of_speech(names_of_parts(population["test_fraction"] > 0))
    pearson = [(f"Pearson, {name}", "pearson" if of == "all" else f"{of}/pearson", 4) for of, name in pairs.items()]
    rows = [[label, *(number(clouds[n].get(key), digits) for n in names)] for label, key, digits in (*pearson, *_ROWS)]
    for band, pairs in found["pairs_in_band"].items():
        label = f"mean cosine at similarity {band.replace('_', '–')} ({pairs:,} pairs)"
        rows.append([label, *(number(clouds[n].get(f"band/{band}"), 4) for n in names)])
    prefix = f"`{found['prefix']}` before each" if found["prefix"] else "no prefix"
    cv = clouds[names[0]]["pentachoron/cv"]
    where = f"{'inside' if BAND[0] <= cv <= BAND[1] else 'outside'} the band of {BAND[0]:.2f}–{BAND[1]:.2f}"
    lines = [
        f"# {found['model']}: its cosines and WordNet",
        f"{population['synsets']:,} synsets of WordNet {population['wordnet']} (single tokens of "
        f"{population['tokenizer']}; {population['held_out_synsets']:,} held out), all {population['pairs']:,} pairs. "
        f"Definitions, {prefix}, {found['tokens']['mean']:.1f} tokens on average; {found['pooling']}; "
        f"{found['dimensions']} dimensions.",
        table(["", *names], rows),
        f"`{names[0]}` is the model itself"
        + (", `original` its frozen backbone without the modulator" if "original" in clouds else "")
        + (", `static` the mean of its input embeddings" if "static" in clouds else "")
        + (", `random` the same architecture with random weights" if "random" in clouds else "")
        + ". Gradient: mean cosine at path similarity of at least 0.25 minus that below 0.10. CV: of the volumes of "
        f"1,000 pentachora; z compares it with Gaussian points of the same scales. {number(cv, 3)} lies "
        f"{where} that has been called universal.",
    ]
    return "\n\n".join(lines) + "\n"


def bands_figure(found: Mapping[str, Any]) -> "Figure":
    """Mean cosine in each band of path similarity, one line a cloud."""
    from matplotlib.figure import Figure

    from modulant.reports.drawing.plotting import BLUE, GREEN, GREY, INK, ORANGE, dress

    styles = {
        "encoder": ("the encoder", BLUE, "o", "-"),
        "modulated": ("modulated encoder", BLUE, "o", "-"),
        "original": ("original encoder", INK, "D", "--"),
        "static": ("its input embeddings", ORANGE, "s", "-"),
        "random": ("same architecture, random weights", GREY, "^", ":"),
    }
    bands = [band for band, pairs in found["pairs_in_band"].items() if pairs]
    figure = Figure(figsize=(7.6, 4.6), layout="constrained")
    axis = figure.subplots()
    for name, figures in found["clouds"].items():
        label, colour, marker, style = styles.get(name, (name, GREEN, "o", "-"))
        values = [figures[f"band/{band}"] for band in bands]
        axis.plot(range(len(bands)), values, color=colour, marker=marker, linestyle=style, linewidth=1.8, label=label)
    axis.set_xticks(
        range(len(bands)),
        [f"{band.replace('_', '–')}\n{short(found['pairs_in_band'][band])} pairs" for band in bands],
    )
    first = next(iter(found["clouds"].values()))
    dress(
        axis,
        title=f"{folder_name(found['model'])}: Pearson {number(first['pearson'], 3)} of cosine with path similarity",
        x="path similarity of two synsets",
        y="mean cosine (unitless)",
    )
    figure.legend(frameon=False, fontsize=9, loc="outside lower center", ncols=2)
    return figure
