"""A sweep file of Weights & Biases, read for a search without it: the parameters, the metric and the command line."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modulant.reports.choosing import check_choice
from probes.configurations import CONFIGS, near, read_yaml
from probes.controls.plan import TRAIN

_KEYS = ("program", "method", "metric", "parameters", "early_terminate", "command", "name", "description", "project",
         "entity", "run_cap")  # fmt: skip
REPORTED = "relational/held_out/pearson_lift"  # of the best trial; nothing is chosen by it
_LEFT_OUT = "wandb.yaml"  # a trial here is logged nowhere else


@dataclass(frozen=True)
class Parameter:
    """A setting and what it may be: one of `values`, or a number from `low` to `high`."""

    name: str
    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    def suggest(self, trial: Any) -> Any:
        """Let an Optuna trial choose a value."""
        if self.values:
            return trial.suggest_categorical(self.name, list(self.values))
        if self.integer:
            return trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)


@dataclass(frozen=True)
class Sweep:
    """A sweep file.

    Attributes:
        metric: the key that is looked at, its last value.
        maximize: whether more of it is better.
        words: the command line, without the parameters.
        min_checks: values of the metric that a trial may have before it can be ended early; None: none is.
    """

    path: Path
    metric: str
    maximize: bool
    parameters: tuple[Parameter, ...]
    words: tuple[str, ...]
    min_checks: int | None

    def describe(self) -> dict[str, Any]:
        """What must stay the same when a search is resumed, for JSON."""
        return {
            "metric": self.metric,
            "maximize": self.maximize,
            "parameters": [
                {"name": p.name, "values": list(p.values), "range": [p.low, p.high], "log": p.log}
                for p in self.parameters
            ],
            "words": list(self.words[2:]),  # without where python and train.py lie
        }


def read_sweep(name: str) -> Sweep:
    """Read a sweep file.

    Raises:
        ValueError: there is none, or something in it that a search here cannot do or should not: choose by the figures
            that are reported; the key is named.
    """
    path = next((p for p in (Path(name), CONFIGS / "sweeps" / name) if p.is_file()), None)
    if path is None:
        known = sorted(p.name for p in (CONFIGS / "sweeps").glob("*.yaml"))
        raise ValueError(f"{name}: no such file here or in configs/sweeps/; there are {', '.join(known)}")
    content = read_yaml(path)
    for key in content:
        if key not in _KEYS:
            raise ValueError(f"{path}: {key} is no key of a sweep{near(str(key), _KEYS)}")
    metric = content.get("metric")
    if not isinstance(metric, Mapping) or not isinstance(metric.get("name"), str):
        raise ValueError(f"{path}: metric.name is missing; name a figure of metrics.csv")
    check_choice(metric["name"], f"{path}: metric.name")
    if (goal := metric.get("goal", "minimize")) not in ("minimize", "maximize"):
        raise ValueError(f"{path}: metric.goal is {goal}; it must be minimize or maximize")
    parameters = content.get("parameters")
    if not isinstance(parameters, Mapping) or not parameters:
        raise ValueError(f"{path}: parameters is missing; name at least one setting and what it may be")
    early = content.get("early_terminate")
    return Sweep(
        path,
        str(metric["name"]),
        goal == "maximize",
        tuple(_parameter(path, str(key), value) for key, value in parameters.items()),
        tuple(_words(path, content.get("command"))),
        int(early.get("min_iter", 1)) if isinstance(early, Mapping) else None,
    )


def _parameter(path: Path, name: str, node: Any) -> Parameter:
    where = f"{path}: parameters.{name}"
    if not isinstance(node, Mapping):
        raise ValueError(f"{where} must be a mapping with values, value, or min and max")
    if "value" in node:
        return Parameter(name, (node["value"],))
    if "values" in node:
        if not isinstance(node["values"], list) or not node["values"]:
            raise ValueError(f"{where}.values must be a list that is not empty")
        return Parameter(name, tuple(node["values"]))
    low, high = node.get("min"), node.get("max")
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in (low, high)):
        raise ValueError(f"{where}: min is {low} and max is {high}; both must be numbers (1.0e-4, not 1e-4)")
    assert low is not None
    assert high is not None
    if not low < high:
        raise ValueError(f"{where}: min is {low}; it must be below max, which is {high}")
    integer = isinstance(low, int) and isinstance(high, int)
    kind = node.get("distribution", "int_uniform" if integer else "uniform")
    if kind not in ("uniform", "int_uniform", "log_uniform_values"):
        raise ValueError(f"{where}.distribution is {kind}; here it must be uniform, int_uniform or log_uniform_values")
    if kind == "log_uniform_values" and low <= 0:
        raise ValueError(f"{where}: min is {low}; log_uniform_values begins above 0")
    return Parameter(name, (), low, high, kind == "log_uniform_values", kind == "int_uniform")


def _words(path: Path, command: Any) -> list[str]:
    """The command that an agent would start, by this interpreter and this train.py, with nothing of W&B in it."""
    if not isinstance(command, list) or "fit" not in command:
        raise ValueError(f"{path}: command is missing; it must be a list with fit and its --config")
    words = [sys.executable, str(TRAIN)]
    left = [str(word) for word in command if not (str(word).startswith("${") and str(word).endswith("}"))]
    while left:
        word = left.pop(0)
        if word in ("--config", "-c") and left and left[0] == _LEFT_OUT:
            left.pop(0)
        elif word != f"--config={_LEFT_OUT}":
            words.append(word)
    return words
