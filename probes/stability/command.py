"""How much a sampled figure moves: the same figures over N seeds of sampling, beside the whole population's.

A correlation over a sample of pairs is an estimate, and so is a CV over a sample of pentachora. Whether a difference
between two encoders means anything depends on what sampling alone does to it: here that is measured, not assumed. The
noise of the *synsets* is another matter: an interval for that comes from a bootstrap over synsets.
"""

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modulant.reports.wording import number
from probes.alignment.command import relational
from probes.alignment.populations import add_population_arguments, definitions, describe, load_data, split_for
from probes.options import at_least
from probes.pages import folder_name, leave, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

DESCRIPTION = """\
How much would a sampled figure have moved? Relational figures over --pairs pairs and the pentachoron CV over
--simplices draws, for each of --seeds seeds: mean ± sd [min, max], beside the exact figure of the whole population.
A run is measured beside its frozen backbone, and their difference, the lift, over the same pairs."""

EXAMPLES = """\
examples:
  python probe.py stability runs/lerp/version_0
  python probe.py stability mini --seeds 100 --pairs 50000"""

RELATIONAL = ("pearson", "spearman", "gradient", "mean_cosine")
NAMES = {
    "pearson": "Pearson",
    "spearman": "Spearman",
    "gradient": "gradient",
    "mean_cosine": "mean cosine",
    "cv": "pentachoron CV",
}
REFERENCE_DRAWS = 100_000  # of pentachora: there are 10¹⁷, so the reference is a large sample, not all
ROUNDING = 1e-9  # a standard deviation below that is of the order of summation
CLEAR = 3.0  # a lift of fewer standard deviations than that is called noise


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        metavar="RUN_OR_MODEL",
        help="a run, its modulator/, mini, a folder in Hugging Face's layout, or a hub id",
    )
    parser.add_argument("--seeds", type=at_least(2), default=50, help="number of samples (default: %(default)s)")
    parser.add_argument("--pairs", type=at_least(2), default=200_000, help="pairs in a sample (default: %(default)s)")
    parser.add_argument(
        "--simplices", type=at_least(2), default=500, help="pentachora in a sample (default: %(default)s)"
    )
    add_population_arguments(parser)
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: runs/probes/stability_<model>")


def main(args: argparse.Namespace) -> int:
    """Measure, write stability.json, stability.md and stability.png, print the page."""
    return leave("stability", args.model, args.output, lambda: measure_stability(args), as_page, dots)


def measure_stability(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that `stability.json` holds.

    Raises:
        ValueError: no such run, encoder, tokenizer or WordNet, or too few synsets.
    """
    from probes.alignment.encoders import open_encoder, represent

    split = split_for(args.model, args.population, args.nltk_data)
    encoder = open_encoder(args.model, args.prefix)
    data = load_data(split)
    tokens = encoder.tokens(definitions(data))
    points = {cloud: represent(encoder, tokens, cloud) for cloud in encoder.clouds(random=False, static=False)}
    distances = data.path_distances()
    exact = {cloud: relational(some, distances, data.population.part) for cloud, some in points.items()}
    for cloud, some in points.items():
        exact[cloud] = {key: exact[cloud][key] for key in RELATIONAL} | {"cv": reference_cv(some)}
    started = time.monotonic()
    samples = sampled_figures(points, distances, args.seeds, args.pairs, args.simplices)
    seconds = time.monotonic() - started
    if len(points) == 2:
        exact["lift"] = {key: exact["modulated"][key] - exact["original"][key] for key in exact["original"]}
        samples["lift"] = {key: samples["modulated"][key] - samples["original"][key] for key in samples["original"]}
    population = describe(split, data)
    total = population["pairs"]
    warnings = []
    if args.pairs >= total:
        warnings.append(
            f"{args.pairs:,} pairs were asked for and the population has {total:,}: every sample holds all of them, so "
            "the relational figures cannot move; ask for fewer by --pairs"
        )
        print(f"warning: {warnings[0]}", file=sys.stderr)
    return {
        "model": args.model,
        "prefix": encoder.form.prefix,
        "population": population,
        "seeds": args.seeds,
        "pairs": min(args.pairs, total),
        "simplices": args.simplices,
        "reference_draws": REFERENCE_DRAWS,
        "sampling_seconds": seconds,
        "warnings": warnings,
        "figures": {
            cloud: {key: summary(values) | {"exact": exact[cloud][key]} for key, values in by_key.items()}
            for cloud, by_key in samples.items()
        },
    }


def summary(values: Any) -> dict[str, Any]:
    """Mean, standard deviation (of the sample), extremes, and the values, one a seed."""
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)),
        "min": float(values.min()),
        "max": float(values.max()),
        "values": values.tolist(),
    }


def reference_cv(points: "Tensor") -> float:
    """CV over many draws: there is no population figure of that."""
    import torch

    from modulant.geometry import pentachoron_volumes

    chunk = 10_000
    volumes = torch.cat([pentachoron_volumes(points, chunk, seed) for seed in range(REFERENCE_DRAWS // chunk)]).double()
    return float(volumes.std(correction=0) / volumes.mean())


def sampled_figures(
    points: Mapping[str, "Tensor"], distances: Any, seeds: int, pairs: int, simplices: int
) -> dict[str, dict[str, Any]]:
    """Cloud → figure → one value a seed. All clouds are measured on the same pairs and draws of a seed.

    The pairs of a seed are those of `metrics.RelationalAlignment(…, pairs=pairs, seed=seed)`, the draws those of
    `geometry.pentachoron_cv(…, seed=seed)`: a value is what a user would have seen with that seed.

    Args:
        points: cloud → (P, D), the same synsets in each.
        distances: (P, P) bytes, WordNet path distances.
    """
    import numpy as np

    from modulant.geometry import pentachoron_cv
    from probes.stability.sampling import sample_figures

    found: dict[str, dict[str, Any]] = {}
    values = sample_figures(points, distances, list(range(seeds)), pairs)
    for cloud, some in points.items():
        cv = np.array([float(pentachoron_cv(some, simplices, seed)) for seed in range(seeds)])
        found[cloud] = dict(zip(RELATIONAL, values[cloud].T, strict=True)) | {"cv": cv}
    return found


def as_page(found: Mapping[str, Any]) -> str:
    """The page in Markdown."""
    figures, population = found["figures"], found["population"]
    rows = []
    for key in (*RELATIONAL, "cv"):
        for cloud, by_key in figures.items():
            one = by_key[key]
            signed, digits = cloud == "lift", 5 if cloud == "lift" else 4
            mean, sd, low, high, exact = (
                number(one[what], digits, signed and what != "sd") for what in ("mean", "sd", "min", "max", "exact")
            )
            rows.append([f"{NAMES[key]}, {cloud}", f"{mean} ± {sd}", f"[{low}, {high}]", exact])
    lines = [
        f"# {found['model']}: how much sampled figures move",
        f"{found['seeds']} seeds of {found['pairs']:,} pairs and {found['simplices']:,} pentachora each, out of "
        f"{population['pairs']:,} pairs of {population['synsets']:,} synsets of WordNet {population['wordnet']} "
        f"(single tokens of {population['tokenizer']}). Measured in {found['sampling_seconds']:.1f} s.",
        *(f"**Warning:** {warning}." for warning in found["warnings"]),
        table(["", "mean ± sd", "[min, max]", "exact"], rows),
        f"Exact: over all pairs; of the CV, over {found['reference_draws']:,} draws. sd: of one sample, over seeds. "
        + ("The lift is modulated − original on the same pairs and draws. " if "lift" in figures else "")
        + "This is the noise of sampling pairs alone; no number of pairs shrinks that of the synsets.",
    ]
    if "lift" in figures:
        lines += ["## Is the noise of sampling of the order of the lift?", "\n".join(verdicts(found))]
    return "\n\n".join(lines) + "\n"


def verdicts(found: Mapping[str, Any]) -> list[str]:
    """A line a figure: the exact lift in standard deviations of sampling, on the same pairs and on two samples."""
    lines = []
    figures = found["figures"]
    for key in (*RELATIONAL, "cv"):
        lift, paired = figures["lift"][key]["exact"], figures["lift"][key]["sd"]
        # Two encoders measured with two seeds: their errors are independent, and variances add.
        apart = (figures["modulated"][key]["sd"] ** 2 + figures["original"][key]["sd"] ** 2) ** 0.5
        if not (paired > ROUNDING and apart > ROUNDING):
            lines.append(
                f"- **{NAMES[key]}**: lift {number(lift, 5, True)}; nothing moved: there is no noise to compare."
            )
            continue
        said = [
            f"{number(abs(lift) / sd, 1)} sd of {what} ({number(sd, 5)})"
            for sd, what in ((paired, "one sample for both"), (apart, "a sample for each"))
        ]
        if abs(lift) >= CLEAR * apart:
            word = "no: the lift stands out of either"
        elif abs(lift) >= CLEAR * paired:
            word = "yes, unless both are measured on the same sample"
        else:
            word = "yes: one sample cannot tell it from nothing"
        lines.append(f"- **{NAMES[key]}**: {word}. Lift {number(lift, 5, True)} = {said[0]}, {said[1]}.")
    return lines


def dots(found: Mapping[str, Any]) -> "Figure":
    """A panel a figure: one dot a seed, and a line at the exact value; lifts in a row of their own."""
    import numpy as np
    from matplotlib.figure import Figure

    from modulant.reports.drawing.plotting import BLUE, INK, VERMILION, dress

    figures = found["figures"]
    keys = (*RELATIONAL, "cv")
    levels = [[cloud for cloud in reversed(figures) if cloud != "lift"], *([["lift"]] if "lift" in figures else [])]
    figure = Figure(figsize=(2.7 * len(keys), 3.3 * len(levels) + 0.6), layout="constrained")
    grid = figure.subplots(len(levels), len(keys), squeeze=False)
    colours = {"modulated": BLUE, "encoder": BLUE, "original": INK, "lift": VERMILION}
    scatter = np.random.default_rng(0).uniform(-0.16, 0.16, found["seeds"])
    for level, clouds in enumerate(levels):
        for axis, key in zip(grid[level], keys, strict=True):
            for place, cloud in enumerate(clouds):
                one = figures[cloud][key]
                axis.scatter(place + scatter, one["values"], s=12, alpha=0.55, color=colours[cloud], linewidths=0)
                axis.hlines(one["exact"], place - 0.32, place + 0.32, color=colours[cloud], linewidth=1.8)
            if clouds == ["lift"]:
                axis.axhline(0, color="#7f7f7f", linewidth=1, linestyle="--")
            what = f"lift of {NAMES[key]}" if clouds == ["lift"] else NAMES[key]
            dress(axis, title=what, x="")
            named = [] if clouds == ["lift"] else clouds
            axis.set_xticks(range(len(named)), named)
            axis.set_xlim(-0.6, len(clouds) - 0.4)
            axis.ticklabel_format(axis="y", useOffset=False)
        if clouds == ["lift"]:
            grid[level][0].set_ylabel("modulated − original")
    figure.suptitle(
        f"{folder_name(found['model'])}: {found['seeds']} samples of {found['pairs']:,} pairs and "
        f"{found['simplices']:,} pentachora (dots); lines: all pairs, and {found['reference_draws']:,} pentachora",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    return figure
