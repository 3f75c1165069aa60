"""Reports of batteries, read back and gathered by model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

BATTERIES = ("terrain", "topology", "scales", "attention", "spectra")
# Nulls that are figures of their own: by what stands behind the figure's name, or by their whole name.
_ENDINGS = ("_null", "_permuted")
_NAMED = {"neighbours/overlap": "neighbours/chance"}


class Absent(Exception):  # noqa: N818 — no error: it is told in the table
    """A figure that a claim needs is not there; says why."""


class Null(NamedTuple):
    """What a figure would be if there were nothing to find; sd None where one is not known."""

    mean: float
    sd: float | None = None


@dataclass(frozen=True)
class Report:
    """One report.json.

    Attributes:
        folder: where it lies.
        probe: of `BATTERIES`.
        model: as it was named on the command line; of two models both.
        sha256: of the weights; None where unknown.
        figures: name → number; None for what is undefined or does not apply.
        nulls: name → mean and sd, where they are not figures of their own.
        units: name → unit.
        reasons: name of a figure or group → why it is None.
    """

    folder: Path
    probe: str
    model: str
    sha256: str | None
    figures: Mapping[str, float | None]
    nulls: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """A figure; of a run, that of its original model where both were measured."""
        return self.figures.get(name, self.figures.get(f"original/{name}"))

    def null(self, name: str) -> Null | None:
        """What stands beside a figure."""
        name = name if name in self.figures else f"original/{name}"
        if (stored := self.nulls.get(name)) is not None and stored.get("mean") is not None:
            return Null(stored["mean"], stored.get("sd"))
        for key in (_NAMED.get(name, ""), *(name + ending for ending in _ENDINGS)):
            if (mean := self.figures.get(key)) is not None:
                return Null(mean, self.figures.get(f"{key}_sd"))
        return None

    def is_null(self, name: str) -> bool:
        """Whether a figure is another one's null, or says how sure one is."""
        whose = [name.removesuffix(f"{end}{sd}") for end in _ENDINGS for sd in ("", "_sd") if name.endswith(end + sd)]
        return name in _NAMED.values() or any(other in self.figures for other in whose)


@dataclass
class Model:
    """Everything that was measured of a model, by battery."""

    name: str
    reports: dict[str, Report] = field(default_factory=dict)

    def need(self, probe: str, name: str) -> float:
        """A figure that a claim cannot do without.

        Raises:
            Absent: it was not measured, or does not exist.
        """
        report = self.reports[probe]
        value = report.value(name)
        if value is not None:
            return value
        if why := report.reasons.get(name) or report.reasons.get(name.partition("/")[0]):
            raise Absent(why)
        raise Absent(f"its report has no `{name}`; run `probe.py {probe} {self.name}`")

    def null(self, probe: str, name: str) -> Null:
        """The null of such a figure.

        Raises:
            Absent: it has none.
        """
        null = self.reports[probe].null(name)
        if null is None:
            raise Absent(f"its report has no null of `{name}`; run `probe.py {probe} {self.name}`")
        return null


def read(folder: Path) -> Report:
    """The report of a battery.

    Raises:
        ValueError: the folder holds none.
    """
    file = folder / "report.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{folder} is no output of a battery: it holds no report.json") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({' '.join(str(error).split())})") from error
    probe = found.get("probe") if isinstance(found, dict) else None
    if probe not in BATTERIES or not isinstance(found.get("figures"), dict) or not found.get("model"):
        raise ValueError(f"{file} is no report of {', '.join(BATTERIES)}")
    model = found["model"]
    if not isinstance(model, str):
        model = " | ".join(map(str, model))
    digest = found.get("sha256", found.get("weights_sha256"))
    figures = {name: value for name, value in found["figures"].items() if value is None or _is_number(value)}
    said = {key: found.get(key) or {} for key in ("nulls", "units", "reasons")}
    return Report(folder, probe, model, digest if isinstance(digest, str) else None, figures, **said)


def by_model(reports: Sequence[Report]) -> list[Model]:
    """Reports gathered by the names of their models, in order.

    Raises:
        ValueError: two are of the same battery and model, or of different weights under one name.
    """
    models: dict[str, Model] = {}
    for report in reports:
        model = models.setdefault(report.model, Model(report.model))
        if (other := model.reports.get(report.probe)) is not None:
            raise ValueError(f"{other.folder} and {report.folder} are both {report.probe} of {report.model}; name one")
        for other in model.reports.values():
            if report.sha256 and other.sha256 and report.sha256 != other.sha256:
                raise ValueError(f"{other.folder} and {report.folder} have different weights by the name {model.name}")
        model.reports[report.probe] = report
    return list(models.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
