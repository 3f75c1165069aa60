"""How the batteries' pages write a figure, its null and a p, and how they end."""

from collections.abc import Mapping
from typing import Any

from modulant.reports.wording import number


def value_of(value: float | None) -> str:
    """A number with about four digits."""
    size = abs(value or 0.0)
    if size >= 10 and size == int(size):  # a count
        return f"{value:,.0f}"
    return number(value, 4 if size < 10 else 2 if size < 1000 else 0)


def null_of(null: Mapping[str, Any] | None) -> str:
    """Mean, standard deviation and number of draws; nothing without a null."""
    if null is None:
        return ""
    spread = "" if null["sd"] is None else f" ± {value_of(null['sd'])} ({null['n']:,})"
    return f"{value_of(null['mean'])}{spread}"


def p_value(p: float) -> str:
    """Down to 0.00005."""
    return number(p, 3) if p >= 0.001 else f"{p:.0e}"


def closing(found: Mapping[str, Any], digests: str, *also: str) -> list[str]:
    """The last lines of a page's method: what was not measured, the weights, seconds and device.

    Args:
        found: what report.json holds.
        digests: of the weights.
        also: lines between these.
    """
    lines = [f"`{name}` was not measured: {why}." for name, why in list(found["reasons"].items())[:12]]
    return [*lines, *also, f"SHA-256 of the weights {digests}; {found['seconds']:.1f} s on {found['device']}."]
