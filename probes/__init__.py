"""Batteries of measurements, one module a probe, each with figures, JSON and Markdown to show for it.

`probe.py` imports a probe by name when it is asked for; nothing is imported here before it is used. A probe's own top
is light too: what needs torch or matplotlib is imported once the command line has proved right.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from probes.lift import relational_lift

__all__ = ["relational_lift"]


def __getattr__(name: str) -> Any:
    if name != "relational_lift":
        raise AttributeError(f"module 'probes' has no attribute '{name}'")
    return getattr(import_module("probes.lift"), name)
