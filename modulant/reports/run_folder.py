"""What lies in a run folder, read back. Whatever is wrong with it is told in one line that names the folder."""

import json
from pathlib import Path
from typing import Any

from modulant.reports.series import Series, read_metrics

_SECTIONS = ("run", "model", "data", "environment", "alpha", "relational", "pentachoron", "loss", "stop", "time")


def report_of(folder: Path, name: str = "report.json") -> dict[str, Any]:
    """The report of a run folder.

    Raises:
        ValueError: there is none, or it is no report.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name a run folder, such as runs/field/version_0")
    try:
        report = json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{folder} is no run folder, or its run has not ended: it holds no {name}") from None
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder / name} cannot be read ({error}); run the training or the evaluation again"
        ) from error
    missing = [key for key in _SECTIONS if not isinstance(report, dict) or not isinstance(report.get(key), dict)]
    if missing:
        raise ValueError(f"{folder / name} is no report of a run: it has no '{missing[0]}'")
    return report


def metrics_of(folder: Path, report: dict[str, Any]) -> dict[str, Series]:
    """The series that a report was made of; none where their file is gone.

    Raises:
        ValueError: the file is there, and no metrics file.
    """
    name = report["run"].get("metrics_file")
    return read_metrics(folder / Path(name).name) if name else {}
