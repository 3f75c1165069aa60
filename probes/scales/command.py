"""Is the vocabulary of a smaller model that of a larger one, turned and projected? Two models, row by row.

Everything is fitted on some rows and read on others, beside the same fit to rows that do not belong together.
"""

import argparse
import time
from typing import Any

from probes.battery import folder_for, measured, publish
from probes.options import add_ending, add_only, at_least
from probes.scales import PARTS

DESCRIPTION = """\
How much the embeddings of two models have in common. Rows are matched by token, or by words that are one token in
both. Rotations (with and without a factor) and linear maps are fitted on anchors and read on held-out rows; CKA,
similarity of similarities, neighbours and volumes need no fit. Each figure has an interval over tokens, and beside it
what the same gives when the rows do not belong together."""

EXAMPLES = """\
examples:
  python probe.py scales mini all-MiniLM-L6-v2
  python probe.py scales google-t5/t5-small google-t5/t5-large --match ids
  python probe.py scales mini /path/to/llama --only fits --nulls 5 --output runs/probes/mini_llama"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "mini, a folder in Hugging Face's layout, a hub id, or a run"
    add("small", metavar="SMALL", help=f"the model with fewer dimensions: {what}")
    add("large", metavar="LARGE", help="the other model")
    add(
        "--match",
        choices=("auto", "words", "ids"),
        default="auto",
        help="ids: by token, where the vocabularies are equal; words: by words that are one token in both; "
        "auto: ids where they are equal (default: %(default)s)",
    )
    add_only(parser, PARTS)
    add("--nulls", type=at_least(2), default=20, metavar="N", help="draws of each null (default: %(default)s)")
    add("--replicates", type=at_least(2), default=500, metavar="N", help="of the bootstrap (default: %(default)s)")
    add_ending(parser, "the division and of all draws", "scales_<small>_<large>")


def main(args: argparse.Namespace) -> int:
    """Measure, write report.json, report.md, report.html and the figures, print the page.

    Raises:
        ValueError: no such model or device, too few rows in common, or the disk refuses a file.
    """
    folder = folder_for("scales", [args.small, args.large], args.output)
    found = measure(args)
    from probes.scales import page
    from probes.scales.charts import charts

    publish(folder, found, charts(found), page.content(found))
    return 0


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that `report.json` holds.

    Raises:
        ValueError: no such model or device, or too few rows in common.
    """
    started = time.monotonic()
    from probes.scales.fits import measure_fits
    from probes.scales.matching import match, open_side
    from probes.scales.record import Record
    from probes.scales.relations import measure_digits, measure_pairs, measure_volumes

    sides = [open_side(name, args.device) for name in (args.small, args.large)]
    swapped = sides[1].dim < sides[0].dim
    small, large = reversed(sides) if swapped else sides
    matched = match(small, large, args.match, args.seed)
    record = Record(args.nulls, args.replicates, args.seed)
    found = record.found
    record.add("words/shared" if matched.how == "words" else "tokens/shared", matched.shared, "both vocabularies")
    curves: dict[str, Any] = {}
    tokens: dict[str, Any] = {}
    if "fits" in args.only:
        fitted = measure_fits(matched, record)
        curves |= fitted["curves"]
        tokens = fitted["tokens"]
    if "pairs" in args.only:
        curves |= measure_pairs(matched, record)
    if "volumes" in args.only:
        measure_volumes(matched, record)
    if "digits" in args.only:
        measure_digits(small, large, record)
    return {
        "probe": "scales",
        "model": f"{small.name}, {large.name}",
        "models": {"small": small.about, "large": large.about},
        "swapped": swapped,
        "matched": {
            "how": matched.how,
            "noun": matched.noun,
            "shared": matched.shared,
            "dropped": matched.dropped,
            "anchors": matched.anchors,
            "held_out": matched.held_out,
        },
        "settings": {
            "match": args.match,
            "only": list(args.only),
            "nulls": args.nulls,
            "replicates": args.replicates,
            "seed": args.seed,
        },
        "curves": curves,
        "tokens": tokens,
        **measured(found, small.embedding.device, started),
    }
