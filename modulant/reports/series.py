"""Series of numbers by step: metrics.csv as a file, and the checks of a report."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modulant.storage import write_whole

Row = dict[str, str]
Series = list[tuple[int, float]]  # (step, value), by step


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a metrics file, cells as text; an incomplete last line is left out."""
    if not path.is_file():
        return [], []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    reader = csv.DictReader(io.StringIO(whole))
    columns = list(reader.fieldnames or [])
    rows = [{key: value for key, value in row.items() if key in columns and value} for row in reader]
    return columns, rows


def read_metrics(path: Path) -> dict[str, Series]:
    """Every key of a metrics file as a series of (step, value), by step; of two values at one step, the later written.

    Raises:
        ValueError: the file has no `step` column, or a cell that is no number.
    """
    columns, rows = read_rows(path)
    if columns and "step" not in columns:
        raise ValueError(f"{path}: a metrics file has a column 'step', got {', '.join(columns)}")
    series: dict[str, dict[int, float]] = {key: {} for key in columns if key != "step"}
    for row in rows:
        for key, cell in row.items():
            if key == "step":
                continue
            try:
                series[key][int(row["step"])] = float(cell)
            except (KeyError, ValueError):
                raise ValueError(f"{path}: step {row.get('step', '?')}, column '{key}': no number: '{cell}'") from None
    return {key: sorted(values.items()) for key, values in series.items() if values}


def write_rows(path: Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Replace a metrics file; on a full disk the old one stays."""
    header = {column: column for column in columns}
    write_whole(path, "".join(row_line(columns, row) for row in (header, *rows)))


def row_line(columns: Sequence[str], row: Mapping[str, str]) -> str:
    """A row as a line of the file, line end included."""
    buffer = io.StringIO()
    csv.DictWriter(buffer, fieldnames=columns, restval="", lineterminator="\n").writerow(row)
    return buffer.getvalue()


def known(value: Any) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def finite_points(series: Sequence[tuple[int, float]]) -> Series:
    """The points of a series that can be drawn."""
    return [(step, value) for step, value in series if known(value)]


def history_of(section: Mapping[str, Any], key: str) -> Series:
    """One figure of the checks in a section of a report."""
    history = section.get("history") or []
    return finite_points([(int(check["step"]), check[key]) for check in history if key in check])


def smoothed(values: Sequence[float], span: float) -> list[float]:
    r"""Exponential average `s_t = Σ_i w^(t−i) x_i / Σ_i w^(t−i)` with `w = 1 − 1 / span`: no bias at the start.

    >>> smoothed([1.0, 3.0], span=2.0)
    [1.0, 2.3333333333333335]
    """
    decay = 1 - 1 / span
    total = weight = 0.0
    out = []
    for value in values:
        if math.isfinite(value):
            total, weight = decay * total + value, decay * weight + 1
        out.append(total / weight if weight else math.nan)
    return out
