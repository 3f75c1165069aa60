"""The files of a run folder, read back. An error is one line that names the folder."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modulant.reports.series import Series, read_metrics

_SECTIONS = ("run", "model", "data", "environment", "alpha", "relational", "pentachoron", "loss", "stop", "time")


def report_of(folder: Path, name: str = "report.json") -> dict[str, Any]:
    """The report of a run folder.

    Raises:
        ValueError: the folder holds none, or the file is not a report.
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
    """The series that a report was made of; empty without their file.

    Raises:
        ValueError: the file is not a metrics file.
    """
    name = report["run"].get("metrics_file")
    return read_metrics(folder / Path(name).name) if name else {}


def finite(value: Any) -> Any:
    """The same as plain JSON values; NaN and infinities become None."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [finite(inner) for inner in value]
    if isinstance(value, bool | str) or value is None:
        return value
    if hasattr(value, "tolist"):  # tensors, arrays, NumPy's numbers
        return finite(value.tolist())
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)
