"""metrics.csv as a file: rows of text, and series of numbers by step."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from modulant.storage import write_whole

Row = dict[str, str]
Series = list[tuple[int, float]]  # (step, value), by step


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Columns and rows of a metrics file, cells as text; a last line that a kill cut short is left out."""
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
    """Rewrite a metrics file as a whole; on a full disk the old one stays."""
    header = {column: column for column in columns}
    write_whole(path, "".join(row_line(columns, row) for row in (header, *rows)))


def row_line(columns: Sequence[str], row: Mapping[str, str]) -> str:
    """A row as the file holds it, its end included."""
    buffer = io.StringIO()
    csv.DictWriter(buffer, fieldnames=columns, restval="", lineterminator="\n").writerow(row)
    return buffer.getvalue()
