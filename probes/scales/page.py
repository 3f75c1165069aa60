"""The page of a comparison: every figure beside its null, what the nulls say, and how it was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.table import Table
from modulant.reports.wording import counted, interval, number
from probes.wording import closing, null_of, p_value, value_of

Found = Mapping[str, Any]  # what report.json holds

CLEAR = 3.0  # sd of a null between its mean and the lower end of an interval
_SECTIONS = {
    "Fits": ("rotation", "rotation_scaled", "rotation_thin", "rotation_thin_scaled", "ridge", "ridge_back"),
    "What the rotation leaves": ("residual",),
    "Without alignment": ("cka", "rsa", "neighbours"),
    "Volumes": ("volumes",),
    "Digits": ("digits",),
    "As published": ("source",),
}
_TOKEN = {
    "cosine": "cosine",
    "norm_small": "norm, smaller",
    "norm_large": "norm, larger",
    "id_small": "number, smaller",
    "id_large": "number, larger",
}
# Figures that can show something that both models have.
SHARED = {
    "rotation/cosine": "cosine after a rotation",
    "ridge/r2": "R² of a linear map to the smaller model",
    "ridge_back/r2": "R² of a linear map to the larger model",
    "cka/unbiased": "unbiased CKA",
    "rsa/spearman": "similarity of similarities (RSA)",
    "neighbours/overlap": "overlap of ten neighbours",
    "volumes/r_partial": "volumes given distances from the mean",
}


def beyond(found: Found, name: str) -> bool:
    """Whether the lower end of a figure's interval is 3 sd above the mean of its null."""
    low, null = found["figures"].get(f"{name}_low"), found["nulls"].get(name)
    return low is not None and null is not None and low > null["mean"] + CLEAR * (null["sd"] or 0.0)


def finding(found: Found) -> str:
    """Whether the two vocabularies have something in common, in one sentence."""
    measured = [name for name in SHARED if found["figures"].get(name) is not None]
    clear = sum(beyond(found, name) for name in measured)
    if not measured:
        return "Nothing was measured that the two vocabularies could have in common."
    has = "have something in common" if clear else "have nothing in common that chance would not give"
    return f"The two vocabularies {has}: {clear} of {counted(len(measured), 'measure')} lie clearly beyond chance."


def verdicts(found: Found) -> list[str]:
    """A line for each claim, which names its null."""
    figures, lines = found["figures"], []
    measured = {name: words for name, words in SHARED.items() if figures.get(name) is not None}
    clear = [words for name, words in measured.items() if beyond(found, name)]
    rest = [words for name, words in measured.items() if not beyond(found, name)]
    if measured and not clear:
        lines.append(
            f"**Nothing is beyond its null**: none of {len(rest)} figures ({', '.join(rest)}) shows anything that the "
            "two vocabularies have in common."
        )
    elif measured:
        said = f"; not told apart from it: {', '.join(rest)}" if rest else ""
        lines.append(f"**Beyond the null**, {len(clear)} of {len(measured)} figures: {', '.join(clear)}{said}.")
    if "rotation/cosine" in measured:
        lines.append(
            f"**Rotation**: {_said(found, 'rotation/cosine')} between held-out rows, centred. As published, with the "
            f"mean added back and anchors among the rows, it would be {number(figures['source/rotation/cosine'], 3)}, "
            f"and {number(figures['source/rotation/cosine_null'], 3)} of permuted anchors. R² is "
            f"{number(figures['rotation/r2'], 3)} without a factor and {number(figures['rotation_scaled/r2'], 3)} with "
            f"one of {number(figures['rotation_scaled/scale'], 4)}."
        )
        lines.append(
            f"**Linear maps**, R² of held-out rows: to the smaller model {_said(found, 'ridge/r2')}; to the larger "
            f"{_said(found, 'ridge_back/r2')}."
        )
    if "cka/unbiased" in measured:
        lines.append(
            f"**Without alignment**: unbiased CKA {_said(found, 'cka/unbiased')} (biased "
            f"{number(figures['cka/biased'], 3)}, null {number(figures['cka/biased_null'], 3)}); RSA "
            f"{_said(found, 'rsa/spearman')}, Mantel p {p_value(figures['rsa/p'])}; neighbours "
            f"{_said(found, 'neighbours/overlap')}."
        )
    if figures.get("volumes/r") is not None:
        lines.append(
            f"**Volumes** of the same five rows: r {_said(found, 'volumes/r')}; given the "
            f"distances of the corners from the mean "
            f"{_said(found, 'volumes/r_partial')}."
        )
    if figures.get("digits/r") is not None:
        each = ", ".join(
            f"{words} {number(figures[f'digits/{key}r'], 3)} (p {p_value(figures[f'digits/{key}p'])})"
            for key, words in (("", "both models"), ("small_", "order in the smaller"), ("large_", "in the larger"))
        )
        lines.append(f"**Digits**: correlations over 45 pairs of ten, against permuted digits: {each}.")
    return lines


def _said(found: Found, name: str) -> str:
    """A figure with its interval, and how it stands to its null."""
    figures, null = found["figures"], found["nulls"][name]
    ends = [figures[f"{name}_low"], figures[f"{name}_high"]]
    stands = "above" if beyond(found, name) else "not told apart from"
    of_null = f"{number(null['mean'], 3)} ± {number(null['sd'], 3)} ({null['what']})"
    return f"{number(figures[name], 3)} {interval(ends, 3, signed=False)}, {stands} {of_null}"


def content(found: Found) -> dict[str, Any]:
    """What report.md and report.html say."""
    small, large = found["models"]["small"], found["models"]["large"]
    matched, noun = found["matched"], found["matched"]["noun"]
    lead = (
        f"{small['name']} ({small['architecture']}, {small['dimensions']:,} dimensions) and {large['name']} "
        f"({large['architecture']}, {large['dimensions']:,}): {matched['shared']:,} {noun} in both, "
        f"{matched['anchors']:,} fitted, {matched['held_out']:,} held out, seed {found['settings']['seed']}."
    )
    if found["swapped"]:
        lead += " The second model has fewer dimensions, so the two were swapped."
    if matched["dropped"]:
        lead += f" {matched['dropped']:,} rows of zeros or without finite numbers were left out."
    sections = {title: _table(found, groups) for title, groups in _SECTIONS.items()}
    for end, title in (("best", "Aligned best"), ("worst", "Aligned worst")):
        rows = [[row["token"], *(value_of(row[key]) for key in _TOKEN)] for row in found.get("tokens", {}).get(end, [])]
        sections[title] = Table(["held out", *_TOKEN.values()], rows)
    return {
        "title": f"{found['model']}: scales",
        "lead": lead,
        "finding": finding(found),
        "verdicts": verdicts(found),
        "sections": {title: table for title, table in sections.items() if table},
        "method": _method(found),
    }


def _table(found: Found, groups: Sequence[str]) -> Table:
    """A row a figure; its interval and its null are in the row."""
    figures, rows = found["figures"], []
    for name, value in figures.items():
        own, _, kind = name.rpartition("_")
        beside = kind in ("low", "high", "null") and own in figures
        if name.partition("/")[0] not in groups or beside or name.partition("/")[0] in found["reasons"]:
            continue
        null = found["nulls"].get(name)
        ends = [figures.get(f"{name}_low"), figures.get(f"{name}_high")]
        shown = interval(ends, 4, signed=False) if ends[0] is not None and ends[1] is not None else ""
        what = null["what"] if null else ""
        rows.append([name, found["populations"][name], what, value_of(value), shown, null_of(null)])
    return Table(["figure", "over", "null is", "value", "95%", "null"], rows, words=3)


def _method(found: Found) -> list[str]:
    matched, settings = found["matched"], found["settings"]
    how = (
        "Rows are matched by token, since the vocabularies are equal."
        if matched["how"] == "ids"
        else "Rows are matched by words that are one token in both: letters alone, at least two, no capitals, marks "
        "taken away."
    )
    lines = [
        f"{how} Everything is measured on rows that no fit saw, minus the mean of the anchors, in fp64.",
        "Rotation: principal axes of the larger model's anchors, then Procrustes. `rotation_thin` takes no axes first, "
        "`…_scaled` has a factor Σ S / ‖P‖². Ridge: penalty by the last fifth of the anchors. R² is against the mean "
        f"of the anchors. Null: the pairing of the anchors permuted and everything fitted again, {settings['nulls']} "
        "times, read on the held-out rows.",
        "CKA, RSA, neighbours and volumes have no fit; their null permutes the rows of one model. Mantel's p permutes "
        "tokens. Volumes are compared by their logarithms, and given Σ log of the distances of their corners from the "
        "mean.",
        f"Intervals: {settings['replicates']} resamples of held-out rows (never of pairs), 95%. A pair counts as often "
        "as its rows, and a pentachoron as its five; fits, ranks and neighbours stay those of all rows. “Above” its "
        "null: the lower end is at least 3 sd above its mean.",
        "Of the tokens that are aligned best and worst, the number in a vocabulary is roughly a rank of frequency.",
        "`source/` holds figures as published elsewhere: means not taken away, anchors among the rows, Σ S called a "
        "scale, volumes filtered in each model by itself.",
    ]
    digests = ", ".join(f"{found['models'][side]['sha256'][:16]}…" for side in ("small", "large"))
    return [*lines, *closing(found, digests)]
