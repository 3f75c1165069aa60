"""The page of a model's weights: tables with a null beside each figure, charts by depth, and how to read them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from modulant.reports import render
from modulant.reports.drawing.chart import LAYERS, Axis, Chart, Level, Line
from modulant.reports.drawing.figures import draw
from modulant.reports.table import Table
from modulant.reports.wording import counted, listed, number, short
from probes.topology import RANKS, positions_page
from probes.topology.summary import beyond

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Any]  # what report.json holds
Row = Mapping[str, Any]
Rows = Mapping[str, Sequence[Row]]

_RANKS = {"stable_rank": "stable rank", "participation_ratio": "participation ratio", "entropy_rank": "entropy rank"}
_FORMS = {
    "stable_rank": "stable rank",
    "signed_mass": "signed mass",
    "symmetry": "symmetry",
    "reality": "reality of eigenvalues",
    "trace_cosine": "trace cosine",
}
_SHARES = {name: label for name, label in _FORMS.items() if name != "stable_rank"}
_COLOURS = {"q": "@blue", "k": "@vermilion", "v": "@green", "o": "@orange"}  # of cross-attention dashed
_COLOURS |= {"gate": "@purple", "up": "@sky", "down": "@ink"}
_KINDS = {"self_qk": "queries and keys", "self_ov": "outputs and values"}
_KINDS |= {f"cross{kind.removeprefix('self')}": f"cross-attention, {words}" for kind, words in _KINDS.items()}


# Start of a chart's name → how to read it.
_READING = {
    "ranks": "at 1 a matrix uses its directions as evenly as noise; the lower, the fewer directions it uses.",
    "spectra": "a line that starts above the dotted one and falls below it puts its strength into few directions.",
    "between": "the further a line lies above the grey one, the more a layer reads or writes what the one before does.",
    "positions": "a line is a head; where it is high, the head looks, so many tokens to the left (−) or right (+).",
    "": "blue points are heads, grey ones pairs that do not belong together; what lies apart was learned.",
}


def markdown(found: Found, rows: Rows, figures: Sequence[str]) -> str:
    """report.md."""
    made = {f"{chart.name}.png": chart for chart in charts(found, rows)}
    shown = [(made[name].title, f"figures/{name}", made[name].reading) for name in figures]
    return render.markdown("topology", **_content(found), figures=shown)


def html(found: Found, rows: Rows) -> str:
    """report.html."""
    return render.html("topology", charts(found, rows), **_content(found))


def figure(chart: Chart) -> "Figure":
    """A chart as a matplotlib figure."""
    return draw([chart])


def charts(found: Found, rows: Rows) -> list[Chart]:
    """Ranks by layer, heads by layer, likeness of adjacent layers; for each stack that has them."""
    locations = dict.fromkeys(row["location"] for row in (*rows["matrices"], *rows["heads"], *rows["between"]))
    made = []
    for location in filter(None, locations):
        here = {part: [row for row in rows[part] if row["location"] == location] for part in rows}
        name = location.capitalize()
        measured = [rank for rank in _RANKS if any(row.get(rank) is not None for row in here["matrices"])]
        ranks = {_RANKS[rank]: _lines(here["matrices"], rank, "Gaussian matrix") for rank in measured}
        title = f"{name}: effective ranks of its matrices, as a share of a Gaussian matrix's"
        made.append(Chart(f"ranks_{location}", title, ranks, Axis("share of the null"), LAYERS))
        title = f"{name}: spectra, mean over layers, beside Gaussian matrices'"
        share, energy = Axis("share of the directions, largest first"), Axis("log₁₀ of σ² over its mean")
        made.append(Chart(f"spectra_{location}", title, _spectra(here["matrices"]), energy, share))
        forms = {words: _points(here["heads"], kind, "stable_rank") for kind, words in _KINDS.items()}
        title = f"{name}: stable rank of every head, and of mismatched ones"
        made.append(Chart(f"head_ranks_{location}", title, forms, Axis("stable rank"), LAYERS))
        for kind, words in _KINDS.items():
            shares = {label: _points(here["heads"], kind, form) for form, label in _SHARES.items()}
            title = f"{name}, {words}: every head, and mismatched ones"
            made.append(Chart(f"{kind}_{location}", title, shares, Axis("value of a head"), LAYERS))
        permuted = [null for row in here["between"] for null in row["nulls"]["similarity"]]
        likeness = {"": _lines(here["between"], "similarity")}
        if permuted:
            likeness[""].insert(0, Level(sum(permuted) / len(permuted), "permuted coordinates", "@grey"))
        title = f"{name}: how alike a layer reads or writes the stream to the layer before"
        made.append(Chart(f"between_{location}", title, likeness, Axis("cosine of Gram matrices"), LAYERS))
    made += positions_page.charts(rows["positions"])
    shown = [
        replace(
            chart,
            views={label: marks for label, marks in chart.views.items() if marks},
            reading=next(text for start, text in _READING.items() if chart.name.startswith(start)),
        )
        for chart in made
    ]
    return [chart for chart in shown if chart.views and chart.values]


def _lines(rows: Sequence[Row], name: str, null: str = "") -> list[Any]:
    """A line a kind of matrix; with a null, as a share of it."""
    marks: list[Any] = [Level(1.0, null, "@grey")] if null and rows else []
    layers = sorted({row["layer"] for row in rows})
    for kind in dict.fromkeys(row["kind"] for row in rows):
        values = {row["layer"]: _share(row, name, bool(null)) for row in rows if row["kind"] == kind}
        points = [(layer, values.get(layer, math.nan)) for layer in layers]
        dash = "dash" if kind.startswith("cross") else "solid"
        marks.append(Line(points, kind.replace("_", " "), _COLOURS[kind.partition("_")[2]], dash=dash, marker=5))
    return marks


def _spectra(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Shape of matrices → the null's spectrum, and one line a kind."""
    views: dict[str, list[Any]] = {}
    measured = [row for row in rows if row.get("spectrum")]
    for m, n in dict.fromkeys(tuple(sorted(row["shape"])) for row in measured):
        here = [row for row in measured if sorted(row["shape"]) == [m, n]]
        null = Line(_along(here[0]["nulls"]["spectrum"]), "Gaussian matrix", "@grey", dash="dot")
        views[f"{m} × {n}"] = [null]
        for kind in dict.fromkeys(row["kind"] for row in here):
            spectra = [row["spectrum"] for row in here if row["kind"] == kind]
            mean = [sum(values) / len(values) for values in zip(*spectra, strict=True)]
            dash = "dash" if kind.startswith("cross") else "solid"
            colour = _COLOURS[kind.partition("_")[2]]
            views[f"{m} × {n}"].append(Line(_along(mean), kind.replace("_", " "), colour, dash=dash))
    return views


def _along(spectrum: Sequence[float]) -> list[tuple[float, float]]:
    return [((i + 0.5) / len(spectrum), value) for i, value in enumerate(spectrum)]


def _share(row: Row, name: str, of_null: bool) -> float:
    value = row.get(name)
    if value is None:
        return math.nan
    return float(value / row["nulls"][name] if of_null else value)


def _points(rows: Sequence[Row], kind: str, name: str) -> list[Any]:
    """A point a head, and beside it one for its left side with the right side of the layer below."""
    here = [row for row in rows if row["kind"] == kind and row.get(name) is not None]
    if not here:
        return []
    heads = [(row["layer"], row[name]) for row in here]
    nulls = [(row["layer"] - 0.2, _or_nan(row["nulls"].get(name))) for row in here]
    return [
        Line(heads, "a head", "@blue", width=0, marker=5, opacity=0.8),
        Line(nulls, "mismatched", "@grey", width=0, marker=4, opacity=0.6),
    ]


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _content(found: Found) -> dict[str, Any]:
    """What both pages say."""
    n = sum(kind["numbers"] for kind in found["tensors"].values())
    return {
        "title": f"{found['model']}: its weights",
        "lead": f"{short(n)} numbers in {counted(sum(k['tensors'] for k in found['tensors'].values()), 'tensor')}; "
        f"effective ranks by {found['way']}. Each figure stands beside its null, in brackets.",
        "matrices": _matrices(found["figures"]),
        "sizes": _sizes(found["figures"]),
        "heads": _forms(found),
        "between": _likeness(found),
        "neurons": _neurons(found["figures"]),
        "positions": positions_page.table(found["figures"], found["tests"]),
        "changes": _changes(found["figures"]),
        "finding": _finding(found),
        "verdicts": _verdicts(found),
        "notes": _notes(found),
        "method": _METHOD,
    }


def _places(figures: Mapping[str, Any], name: str) -> list[str]:
    """What stands before a figure's name, source figures left out."""
    return [
        key.removesuffix(f"/{name}") for key in figures if key.endswith(f"/{name}") and not key.startswith("source/")
    ]


def _beside(figures: Mapping[str, Any], key: str, digits: int) -> str:
    """A figure and, in brackets, its null."""
    null = figures.get(f"{key}_null")
    return number(figures.get(key), digits) + (f" ({number(null, digits)})" if null is not None else "")


def _matrices(figures: Mapping[str, Any]) -> Table:
    names = {"stable_rank": 2, "participation_ratio": 1, "entropy_rank": 1, "rank90": 1, "active": 3, "condition": 2}
    rows = [
        [place, *(_beside(figures, f"{place}/{name}", digits) for name, digits in names.items())]
        for place in _places(figures, "rank90")
    ]
    header = ["mean over layers", "stable rank", "participation", "entropy rank", "rank 90%", "active", "ln condition"]
    return Table(header, rows)


def _sizes(figures: Mapping[str, Any]) -> Table:
    names = {"below_0.1_rms": 4, "kurtosis": 2, "below_0.1": 4, "below_0.01": 4}
    rows = [
        [
            place,
            number(figures[f"{place}/rms"]),
            number(figures.get(f"{place}/rms_over_init"), 2),
            *(_beside(figures, f"{place}/{name}", digits) for name, digits in names.items()),
        ]
        for place in _places(figures, "rms")
    ]
    header = ["mean over layers", "rms", "rms / initial", "< 0.1 rms", "kurtosis", "< 0.1", "< 0.01"]
    return Table(header, rows)


def _forms(found: Found) -> Table:
    figures = found["figures"]
    rows = []
    for place in _places(figures, "stable_rank"):
        if place.partition("/")[0] in _KINDS:
            rows.append([place, str(figures[f"{place}/stable_rank_n"])])
            for name in _FORMS:
                key = f"{place}/{name}"
                mark = " *" if beyond(figures, key, found["tests"]) else ""
                rows[-1].append(_beside(figures, key, 3) + mark)
    return Table(["mean over heads", "heads", *_FORMS.values()], rows)


def _likeness(found: Found) -> Table:
    figures = found["figures"]
    rows = []
    for key in figures:
        if key.startswith("between/") and key.count("/") == 2 and f"{key}_n" in figures:
            source = f"source/{key}"
            mark = " *" if beyond(figures, key, found["tests"]) else ""
            cosine = f"{number(figures[source], 5)} (0 ± {number(figures[source + '_null_sd'], 5)})"
            rows.append([key.removeprefix("between/"), _beside(figures, key, 4) + mark, cosine])
    return Table(["mean over pairs of layers", "cosine of Gram matrices", "cosine of the weights"], rows)


def _neurons(figures: Mapping[str, Any]) -> Table:
    rows = [
        [
            place.removeprefix("neurons/"),
            number(figures[f"{place}/n"], 0),
            _beside(figures, f"{place}/cv", 3),
            number(figures[f"{place}/minimum"], 3),
            number(figures[f"{place}/weak"], 0),
        ]
        for place in _places(figures, "weak")
    ]
    return Table(["neurons", "n", "variation of coupling", "smallest / median", "weak, below 0.1"], rows)


def _changes(figures: Mapping[str, Any]) -> Table:
    rows = [
        [
            place.removeprefix("change/"),
            str(figures[f"{place}/n"]),
            number(figures[f"{place}/share"], 4),
            _beside(figures, f"{place}/stable_rank", 2),
            _beside(figures, f"{place}/participation_ratio", 2),
        ]
        for place in (key.removesuffix("/share") for key in figures if key.startswith("change/") and "/share" in key)
    ]
    return Table(["mean over layers", "matrices", "‖ΔW‖ / ‖W‖", "stable rank", "participation"], rows)


def _finding(found: Found) -> str:
    """Where the weights have structure that chance would not give, in one sentence."""
    lines = _verdicts(found)
    beyond = [line.split("**")[1].lower() for line in lines if "**: beyond" in line]
    if not lines:
        return "Nothing was measured that chance could be held against."
    told = f": {listed(beyond)}" if beyond else ""
    kinds = counted(len(lines), "kind")
    return f"Of {kinds} of structure looked for in the weights, {len(beyond)} go beyond chance{told}."


def _verdicts(found: Found) -> list[str]:
    """What differs from its null, and what the null is."""
    figures, tests = found["figures"], found["tests"]
    places = [key.removesuffix("_p") for key in figures if key.endswith("_p")]
    layers = [place for place in places if place.startswith("between/")]
    biases = [place for place in places if place.startswith("positions/")]
    heads = [place for place in places if place not in layers and place not in biases]
    lines = []
    for what, null, chosen in (
        ("Heads", "heads whose two sides are of adjacent layers", heads),
        ("Adjacent layers", "the same with the stream's coordinates permuted", layers),
        ("Biases by position", "each head's values permuted over distances", biases),
    ):
        if not chosen:
            continue
        differ = [place for place in chosen if beyond(figures, place, tests)]
        named = ", ".join(f"`{place}` {number(figures[place], 3, True)}" for place in differ[:6])
        more = f" and {len(differ) - 6} more" if len(differ) > 6 else ""
        said = f"beyond its null ({null}): {named}{more}" if differ else f"nothing beyond its null ({null})"
        lines.append(f"**{what}**: {said}; {counted(len(chosen), 'figure')}.")
    return lines


def _notes(found: Found) -> list[str]:
    """What was not measured, or not all."""
    lines = [found["run"]] if found["run"] else []
    if found["by_name"]:
        known = "kinds of matrices are by their names, as (out, in)"
        lines.append(
            f"**No known family** ({found['architecture']}): {known}; matrices of no known name are `other`. Heads, "
            "neurons and gains depend on the model's code, and are not measured."
        )
    if packed := {name: about for name, about in found["stored_as"].items() if name[0].isupper()}:  # GGUF's names
        named = ", ".join(f"{name} ({counted(about['tensors'], 'tensor')})" for name, about in packed.items())
        rows = " Rows of queries and keys are in the file's order, on which no figure depends." * found["by_name"]
        lines.append(
            f"**GGUF**: {named}. Figures are of the dequantised numbers: the smallest singular values, the condition "
            "and shares of small entries carry what rounding added. The file does not say at which scale weights "
            f"began.{rows}"
        )
    if found["missing_shards"]:
        lines.append(f"**Missing shards**: {', '.join(f'`{name}`' for name in found['missing_shards'])}.")
    if found["damaged"]:
        named = ", ".join(f"`{name}` ({count:,})" for name, count in found["damaged"].items())
        lines.append(f"**Damaged**, with entries that are NaN or infinite, and left out: {named}.")
    if found["duplicates"]:
        lines.append(f"Stored twice, and counted once: {', '.join(f'`{name}`' for name in found['duplicates'])}.")
    if found["unknown"]:
        named = ", ".join(f"`{name}`" for name in found["unknown"][:8]) + (" …" if len(found["unknown"]) > 8 else "")
        lines.append(f"{counted(len(found['unknown']), 'tensor')} of no known kind, not measured: {named}.")
    if found["way"] == RANKS["fast"]:
        lines.append("Without spectra (`--fast`) there is no entropy rank, rank of 90%, active share or condition.")
    if {"q", "k"} & set(found["folded"]):
        lines.append(
            "Queries and keys are normalised head by head: the norms' gains are folded in, the lengths are not."
        )
    return lines


_METHOD = [
    "Ranks are of energies σ²: stable rank Σσ²/σ₁², participation ratio (Σσ²)²/Σσ⁴, entropy rank exp(H), the fewest "
    "directions with 90% of the energy. Active: the share of σ > 0.01 σ₁. Their null is a Gaussian matrix of the same "
    "shape, in closed form. `source/` holds the same of σ instead of σ².",
    "Sizes: shares below fixed limits change with a model's width and its initialisation; beside them is what "
    "Gaussians of the same rms have. `< 0.1 rms` has no scale, and is 0.0797 of Gaussians.",
    "A head is the form xᵀMy of its queries and keys, or what it writes of what it reads, with the gains of the norm "
    "before it; positions by rotation are left out (offset 0). Signed mass is Σλ/Σ|λ| of the symmetric part, symmetry "
    "tr(M²)/‖M‖², reality ΣRe μ/Σ|μ|, which of outputs and values is copying. The numbers of positive and negative "
    "eigenvalues are equal by Sylvester's law whatever the weights are, and are only in heads.jsonl, as `source/`. Of "
    "cross-attention, whose sides live in two spaces, only singular values have a meaning.",
    "A star marks what differs from its null with p < 0.05 over all tests (Bonferroni). For heads the null is the left "
    "side of a head with the right side of the same head one layer below (Welch's t). For adjacent layers it is the "
    "same cosine, of WᵀW − (tr/D)I on the side of the stream, with the stream's coordinates permuted (t with that "
    "null's variance). The cosine of the weights themselves compares unrelated bases of heads and neurons.",
    "The coupling of a neuron is the geometric mean of its norms in gate, up and down over its median; weak is not "
    "dead, which only activations tell.",
    "What an adapter adds is s·BA; the null of its ranks is Gaussian B and A of the same shapes, and the share of a "
    "change has none: before training it is 0.",
    "A bias by relative position has a value a bucket of distances, key − query; a bucket that no distance falls into "
    "is left out. It falls to a side where Spearman's coefficient of the bias with −|Δ| is 1. Entropy is that of "
    "softmax(bias) over distances up to the largest with a bucket of its own, as a share of its maximum. The null: "
    "values permuted over buckets, within each head. The source calls a head local or global by the number of its "
    "largest bucket, by which one that looks one token to the right is neither.",
]
