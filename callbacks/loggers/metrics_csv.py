"""Log all metrics of a run as one wide CSV file in the run folder.

One row per log call: `step`, `epoch`, then one column per key in order of first appearance. Lightning's CSVLogger
deletes an existing file when a run is resumed, and rewrites it in place for a new key; here old rows are kept, a new
column is added by an atomic rewrite, and a row costs one append.
"""

import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from modulant.reports.series import Row, read_rows, row_line, write_rows
from modulant.reports.wording import counted
from modulant.storage import append_line, storing

INDEX_COLUMNS = ("step", "epoch")


class MetricsCSV(Logger):
    """Lightning logger that appends every metric to a CSV file in the run folder, on rank 0 only.

    Steps are those of the last trained batch, counted from 0, as Lightning logs them.

    Args:
        folder: the run folder; created with the first row.
        filename: the file's name in it.
    """

    def __init__(self, folder: str, filename: str = "metrics.csv") -> None:
        super().__init__()
        if not re.fullmatch(r"[\w.-]+\.csv", filename):
            raise ValueError(f"filename is '{filename}'; it must be a plain file name that ends in .csv")
        self._folder = Path(folder)
        self._filename = filename
        self._columns: list[str] | None = None
        self._inherited = 0  # rows that were in the file before this process wrote to it

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self._folder / self._filename

    @property
    def keys(self) -> tuple[str, ...]:
        """What has been logged, on rank zero."""
        return tuple(column for column in self._columns or () if column not in INDEX_COLUMNS)

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self._folder)

    @property
    def log_dir(self) -> str:
        return str(self._folder)

    @rank_zero_only
    def redirect(self, filename: str) -> None:
        """Write to a new file of this name from now on, to keep rows of an evaluation apart from the training's."""
        self._filename = filename
        self._columns = None
        if self.path.is_file():
            self.path.unlink()

    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Keep the inherited rows before `step` and move the others to `…_superseded.csv`; this run will rewrite them.

        A killed run has often logged beyond its last checkpoint.
        """
        columns = self._open()
        _, rows = read_rows(self.path)
        inherited, own = rows[: self._inherited], rows[self._inherited :]
        kept = [row for row in inherited if int(row.get("step", 0)) < step]
        superseded = [row for row in inherited if int(row.get("step", 0)) >= step]
        self._inherited = len(kept)
        if not superseded:
            return
        aside = self.path.with_name(f"{self.path.stem}_superseded.csv")
        aside_columns, aside_rows = read_rows(aside)
        write_rows(aside, _merge(aside_columns, columns), aside_rows + superseded)
        write_rows(self.path, columns, kept + own)
        print(
            f"{self.path.name}: {counted(len(superseded), 'row')} from step {step} on will be rewritten; "
            f"the old ones are in {aside.name}",
            file=sys.stderr,
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        row: Row = {"step": str(0 if step is None else int(step))}
        row |= {key: _cell(value) for key, value in metrics.items() if key != "step"}
        columns = self._open()
        grown = _merge(columns, list(row))
        if grown != columns or not self.path.is_file():
            _, rows = read_rows(self.path)
            write_rows(self.path, grown, [*rows, row])
            self._columns = grown
            return
        append_line(self.path, row_line(columns, row))

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: hyperparameters are in the run's config.yaml."""

    def _open(self) -> list[str]:
        if self._columns is None:
            with storing(self.path):
                self._folder.mkdir(parents=True, exist_ok=True)
            columns, rows = read_rows(self.path)
            self._columns = _merge(list(INDEX_COLUMNS), columns)
            self._inherited = len(rows)
            if self.path.is_file() and (columns != self._columns or not self.path.read_bytes().endswith(b"\n")):
                write_rows(self.path, self._columns, rows)  # also repairs a last line cut short by a kill
        return self._columns


def _merge(columns: Sequence[str], more: Sequence[str]) -> list[str]:
    return list(dict.fromkeys([*columns, *more]))


def _cell(value: Any) -> str:
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, bool):
        return str(int(number))
    return repr(number) if isinstance(number, float) else str(number)
