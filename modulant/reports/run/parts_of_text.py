"""Loss of a language model by parts of a text: by the predicted token's frequency, and by its position."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from modulant.reports.drawing.chart import Axis, Chart, Line, Mark
from modulant.reports.run.rows import Report, step_of
from modulant.reports.series import known
from modulant.reports.table import Table
from modulant.reports.wording import number

_KEY = re.compile(r"(?:val|test)/(by_frequency|by_position)/(?:decile|position)_(\d+)(?:_(\d+))?/nats_per_token")
_TENTH = {1: "1 (commonest)", 10: "10 (rarest)"}

Part = tuple[int, str, float | None, float]  # number of its first, name, loss before and after


def by_frequency(report: Report) -> Table:
    """Loss by tenth of the vocabulary, beside what token frequencies alone give."""
    about = _alone(report)
    rows = [
        [name, number(100 * about["share"][n - 1], 1) + " %", number(about["unigram"][n - 1], 3), *_ends(before, after)]
        for n, name, before, after in _parts(report, "by_frequency")
    ]
    return Table(["tenth of the vocabulary", "of the tokens", "frequency alone", "before", "after"], rows)


def by_position(report: Report) -> Table:
    """Loss by the number of tokens that a token was predicted from."""
    rows = [[name, *_ends(before, after)] for _, name, before, after in _parts(report, "by_position")]
    return Table(["predicted from so many tokens", "before", "after"], rows)


def charts(report: Report) -> list[tuple[Chart, int | None]]:
    """The charts of both, with the step that they are of."""
    found = []
    for kind, axis in (("by_frequency", "tenth of the vocabulary"), ("by_position", "predicted from so many tokens")):
        if not (parts := _parts(report, kind)):
            continue
        alone = _alone(report)["unigram"] if kind == "by_frequency" else ()
        marks: list[Mark] = []
        for name, values, style in (
            ("frequency alone", [alone[n - 1] if alone else None for n, *_ in parts], ("@grey", 1.5, "dot")),
            ("before", [before for _, _, before, _ in parts], ("@ink", 1.5, "dash")),
            ("this model", [after for *_, after in parts], ("@vermilion", 2.5, "solid")),
        ):
            if all(map(known, values)):
                marks.append(Line(list(enumerate(values)), name, *style, marker=6))  # type: ignore[arg-type]
        first, last = (number(part[3], 3) for part in (parts[0], parts[-1]))
        if kind == "by_frequency":
            title = f"Loss {first} on the commonest tenth of the vocabulary, {last} on the rarest that is there"
        else:
            title = f"Loss {first} where a token is predicted from {parts[0][1]}, {last} from {parts[-1][1]}"
        chart = Chart(
            kind, title, {"": marks}, Axis("nats per token", least=0.05), Axis(axis, [part[1] for part in parts])
        )
        found.append((chart, step_of(report, _measured(report, kind)[0][1])))
    return found


def _alone(report: Report) -> Mapping[str, Sequence[Any]]:
    empty = {"share": [None] * 10, "unigram": [None] * 10}
    return report["model"]["describe"].get("by_frequency") or empty


def _measured(report: Report, kind: str) -> list[tuple[re.Match[str], Mapping[str, Any]]]:
    stage = "test" if report["run"]["stage"] == "test" else "val"
    found = [
        (match, values)
        for key, values in report["run"]["metrics"].items()
        if (match := _KEY.fullmatch(key)) and match[1] == kind and key.startswith(stage) and known(values.get("last"))
    ]
    return sorted(found, key=lambda one: int(one[0][2]))


def _parts(report: Report, kind: str) -> list[Part]:
    parts = []
    for match, values in _measured(report, kind):
        start, end = int(match[2]), match[3]
        name = f"{start}–{int(end)}" if end else str(start)
        began = values.get("first_step") != values.get("last_step") and known(values.get("first"))
        before = float(values["first"]) if began else None
        parts.append(
            (start, _TENTH.get(start, name) if kind == "by_frequency" else name, before, float(values["last"]))
        )
    return parts


def _ends(before: float | None, after: float) -> list[str]:
    return [number(before, 3), number(after, 3)]
