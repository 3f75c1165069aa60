"""What the batteries of measurements have in common: where they write, and what they leave there."""

import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.pages import check_output_file, folder_name, write_json, write_text

if TYPE_CHECKING:
    from modulant.reports.drawing.chart import Chart


_PACKAGES = ("modulant", "torch", "transformers", "numpy")


def folder_for(battery: str, models: Sequence[str], output: Path | None) -> Path:
    """The folder to write to: the one asked for, or runs/probes/<battery>_<models>.

    Raises:
        ValueError: something else lies there, or it cannot be written.
    """
    folder = output or Path("runs/probes") / "_".join([battery, *map(folder_name, models)])
    check_output_file(folder / "report.json", ("probe", "figures"))
    return folder


def described(battery: str, model: str, backbone: Any) -> dict[str, Any]:
    """The beginning of report.json: which battery and which model, with the SHA-256 of its weights, read whole for it.

    Args:
        battery: its name.
        model: as the command line names it.
        backbone: `modulant.backbones.opening.Backbone`.
    """
    from modulant.backbones.weights import digest_of_weights

    return {
        "probe": battery,
        "model": model,
        "architecture": backbone.model.config.model_type,
        "shape": {"d_model": backbone.shape.d_model, "layers": backbone.shape.n_layers},
        "sha256": digest_of_weights(backbone.model.name_or_path),
    }


def measured(found: Any, device: Any, started: float) -> dict[str, Any]:
    """The end of report.json: figures with nulls, units, populations and reasons, versions, device, seconds, memory.

    Args:
        found: `probes.findings.Findings`, or what has its attributes.
        device: that it was measured on.
        started: by `time.monotonic`.
    """
    parts = ("figures", "nulls", "units", "populations", "reasons")
    return {part: getattr(found, part) for part in parts} | {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in _PACKAGES},
        "device": str(device),
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": _peak_memory(),
    }


def publish(
    folder: Path, found: Mapping[str, Any], charts: Sequence["Chart"], content: Mapping[str, Any], more: str = ""
) -> None:
    """Write report.json, report.md, report.html and a figure for each chart; print the page.

    Args:
        folder: of the report.
        found: what report.json holds.
        charts: each a PNG, and interactive in report.html.
        content: what both pages say: title, lead, verdicts, sections, method; and the finding in one sentence, for
            which the first verdict stands in.
        more: further files, for the last line.
    """
    from modulant.reports import render
    from modulant.reports.drawing.figures import draw
    from modulant.reports.drawing.plotting import save

    content = {"finding": next(iter(content["verdicts"]), content["lead"])} | dict(content)
    figures = [(chart.title, f"figures/{chart.name}.png", chart.reading) for chart in charts]
    text = render.markdown("battery", **content, figures=figures)
    write_json(folder / "report.json", found)
    write_text(folder / "report.md", text)
    for chart in charts:
        save(draw([chart]), folder / "figures" / f"{chart.name}.png")
    write_text(folder / "report.html", render.html("battery", charts, **content))
    print(text)
    print(f"written: {folder}/report.json, report.md, report.html, {len(charts)} figures{more}")


def _peak_memory() -> int:
    """Of this process; macOS counts bytes, Linux kilobytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
