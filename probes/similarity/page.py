"""The page of a measurement against people's ratings: a table, a chart, and how to read them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from modulant.reports import render
from modulant.reports.drawing.chart import Axis, Chart, Interval
from modulant.reports.drawing.figures import draw
from modulant.reports.series import known
from modulant.reports.table import Table
from modulant.reports.wording import with_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = Mapping[str, Any]  # what report.json holds

PARTS = {"": "all pairs", "untrained/": "untrained", "distinct/": "distinct"}
_COLOURS = {"before": "@ink", "after": "@blue"}


def markdown(found: Found, figure: str | None) -> str:
    """report.md."""
    return render.markdown("similarity", **_content(found), figure=figure)


def html(found: Found) -> str:
    """report.html."""
    made = chart(found)
    return render.html("similarity", [made] if made else [], **_content(found))


def figure(found: Found) -> "Figure | None":
    """The chart as a matplotlib figure; None where nothing has a value."""
    made = chart(found)
    return draw([made]) if made else None


def chart(found: Found) -> Chart | None:
    """ρ before and after with its interval, two rows a file; one view for each selection of pairs."""
    views: dict[str, list[Interval]] = {}
    names: dict[str, None] = {}
    for name, part in _rows(found):
        for column, colour in _COLOURS.items():
            value, ends = _value(found, f"{name}/{part}{column}")
            if value is not None:
                row = f"{name}, {column}"
                names[row] = None
                views.setdefault(PARTS[part], []).append(Interval(value, ends or (value, value), row, colour))
    title = "Agreement with people's ratings, and its 95% interval"
    x, reading = (
        Axis("Spearman's ρ"),
        "1: the encoder ranks pairs of words as people do, 0: no relation. A line is the 95% interval.",
    )
    return Chart("similarity", title, views, Axis(names=list(names)), x, reading=reading) if views else None


def _content(found: Found) -> dict[str, Any]:
    """What both pages say."""
    changed = any(key.endswith("/after") for key in found["figures"])
    rows = []
    for name, part in _rows(found):
        columns = ("before", "after", "change") if changed else ("before",)
        cells = [
            with_interval(*_value(found, f"{name}/{part}{column}"), 3, signed=column == "change") for column in columns
        ]
        rows.append([name, PARTS[part], f"{found['figures'][f'{name}/{part}n']:,.0f}", *cells])
    header = ["", "", "pairs", "before", *(["after", "change"] if changed else [])]
    senses = f"at most {found['senses']}" if found["senses"] else "all"
    return {
        "title": f"{found['model']}: agreement with people",
        "lead": f"Spearman's ρ of the encoder's scores of word pairs with people's ratings; {senses} senses of a word.",
        "results": Table(header, rows, words=2),
        "verdicts": _verdicts(found) if changed else _agreements(found),
        "method": _method(found, senses),
    }


def _rows(found: Found) -> list[tuple[str, str]]:
    """File and selection of pairs, in the order of the table."""
    return [(name, part) for name in found["files"] for part in PARTS if f"{name}/{part}n" in found["figures"]]


def _value(found: Found, key: str) -> tuple[float | None, tuple[float, float] | None]:
    """A figure and its interval; None for what is undefined."""
    value, low, high = (found["figures"].get(f"{key}{end}") for end in ("", "_low", "_high"))
    return value if known(value) else None, (low, high) if known(low) and known(high) else None


def _agreements(found: Found) -> list[str]:
    """A line a file: how far the encoder agrees with people."""
    return [
        f"**{name}**: the encoder's ranks of word pairs agree with people's by ρ "
        f"{with_interval(*value, 3, signed=False)} (1: wholly, 0: not at all)."
        for name in found["files"]
        if (value := _value(found, f"{name}/before"))[0] is not None
    ]


def _verdicts(found: Found) -> list[str]:
    """A line a file: what the modulator did to the agreement."""
    lines = []
    for name in found["files"]:
        value, ends = _value(found, f"{name}/change")
        if value is None or ends is None:
            lines.append(f"**{name}**: undefined, as ratings or scores do not vary.")
            continue
        low, high = ends
        said = "rose" if low > 0 else "fell" if high < 0 else "did not change beyond chance"
        lines.append(f"**{name}**: agreement {said} ({with_interval(value, ends, 3)}).")
    return lines


def _method(found: Found, senses: str) -> list[str]:
    prefix = f", with `{found['prefix']}` before it" if found["prefix"] else ""
    lines = [
        f"A sense is a synset of WordNet, read by its definition{prefix}: the mean of the encoder's last hidden state "
        f"over its tokens. The score of a pair is the largest cosine over {senses} senses of each word.",
        *(_described(name, about) for name, about in found["files"].items()),
        "Two words with a sense in common score 1 whatever the encoder is; `distinct` leaves such pairs out.",
        f"Intervals are 95%, a bootstrap over pairs ({found['replicates']:,} replicates, the same draws before and "
        "after). They say nothing about another training seed.",
    ]
    if (population := found["population"]) is not None:
        trained = population["synsets"] - population["held_out_synsets"]
        lines.append(
            f"`untrained`: pairs without a sense among the {trained:,} synsets of training entries "
            f"({population['entries']:,} entries of {population['tokenizer']}, split by {population['split']}, seed "
            f"{population['seed']}); only senses that enter the score count."
        )
    return lines


def _described(name: str, about: Mapping[str, Any]) -> str:
    outside, left = about["outside_wordnet"], about["pairs"] - about["measured"]
    measured = f"{about['measured']:,} of {about['pairs']:,} pairs"
    said = f"{name}: {measured}, {about['sense_in_common']} of them with a sense in common"
    shown = ", ".join(outside[:8]) + (" …" if len(outside) > 8 else "")
    return f"{said}; {left} left out, as WordNet does not have {shown}." if left else f"{said}."
