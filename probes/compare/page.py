"""The page of a comparison: claims with their verdicts, and figures by model with their nulls."""

from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports import render
from modulant.reports.drawing.chart import Chart
from modulant.reports.table import Table
from modulant.reports.wording import counted
from probes.compare.charts import SURE, charts
from probes.compare.verdicts import HOLDS, LEVEL, NOT_MEASURED, NOTHING, TESTS
from probes.wording import value_of

__all__ = ["charts", "html", "markdown"]

Found = Mapping[str, Any]  # what report.json holds


def markdown(found: Found, drawn: Sequence[str]) -> str:
    """report.md; `drawn` are the batteries that have a figure."""
    figures = [
        (f"{battery}: each figure by model, a blue dot, over its null, grey", f"figures/{battery}.png")
        for battery in drawn
    ]
    return render.markdown("compare", **_content(found), figures=figures)


def html(found: Found, drawn: Sequence[Chart]) -> str:
    """report.html."""
    return render.html("compare", drawn, **_content(found))


def _content(found: Found) -> dict[str, Any]:
    """What both pages say."""
    read = ", ".join(f"{one['probe']} of {one['model']}" for one in found["reports"])
    return {
        "title": f"{counted(len(found['models']), 'model')} compared: {'; '.join(found['models'])}",
        "lead": f"Read: {read}.",
        "verdicts": _verdicts(found),
        "claims": _claims(found),
        "sections": {battery.capitalize(): _figures(found, rows) for battery, rows in found["batteries"].items()},
        "method": _method(found),
    }


def _verdicts(found: Found) -> list[str]:
    """A line a model: how many claims hold, and which."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in found["claims"]):
        rows = [row for row in found["claims"] if row["model"] == model]
        by_kind = {kind: [row for row in rows if row["verdict"] == kind] for kind in (HOLDS, NOTHING, NOT_MEASURED)}
        held = ", ".join(row["claim"] for row in by_kind[HOLDS])
        count = len(by_kind[HOLDS])
        lines.append(
            f"**{model}**: of {len(rows)} claims {count} {'holds' if count == 1 else 'hold'} beyond a null"
            f"{f' ({held})' if held else ''}, {len(by_kind[NOTHING])} do not, "
            f"{len(by_kind[NOT_MEASURED])} could not be judged."
        )
    return lines


def _claims(found: Found) -> Table:
    rows, before = [], ""
    for row in found["claims"]:
        says = row["says"] if row["says"] != before else ""
        before = row["says"]
        rows.append([says, row["model"], row["measured"], row["null"], row["said"]])
    return Table(
        ["claim, as its source makes it", "model", "measured here", "null or control", "verdict"], rows, words=5
    )


def _figures(found: Found, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a figure, a column a model that has any of them."""
    models = [model for model in found["models"] if any(model in row["values"] for row in rows)]
    cells = [[row["name"], row["unit"], *(_cell(row, model) for model in models)] for row in rows]
    return Table(["figure (null)", "unit", *models], cells, words=2)


def _cell(row: Mapping[str, Any], model: str) -> str:
    value, null = row["values"].get(model), row["nulls"].get(model)
    if value is None or null is None:
        return value_of(value)
    spread = "" if null["sd"] is None else f" ± {value_of(null['sd'])}"
    return f"{value_of(value)} ({value_of(null['mean'])}{spread})"


def _method(found: Found) -> list[str]:
    lines = [
        "Nothing is measured here: every number is of the reports that were read. In brackets is a figure's null, ± "
        f"its sd where it was drawn. In the charts a blue dot is the model's figure, grey its null, ± {SURE:g} sd.",
        f"A claim holds where its figure is as it says and p is below {100 * LEVEL:g}% over {TESTS} claims "
        f"(p < {LEVEL / TESTS:g}); where there is no p, the sentence has the limit. A figure that any weights have, by "
        "a theorem, cannot hold beyond its null.",
    ]
    lines += [f"Passed over: {why}." for why in found["passed_over"]]
    return lines
