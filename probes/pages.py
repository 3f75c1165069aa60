"""How a probe writes what it found: JSON and CSV for programs, Markdown for people."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modulant.reports.run.folder import finite
from modulant.reports.table import Table
from modulant.storage import write_whole
from modulant.storage.places import check_place, held, some


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that also reads as plain text."""
    return Table(head, rows).markdown(aligned=True)


def as_csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A CSV with every key of the rows as a column, empty where a row lacks it."""
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> Path:
    """Write a file complete or not at all; missing folders are created.

    Raises:
        ValueError: the disk refuses it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:  # a StorageError has the whole message already
        said = f"{path} cannot be written ({error.strerror}); name a folder that can" if error.strerror else str(error)
        raise ValueError(f"--output: {said}") from error
    return path


def write_json(path: Path, content: Any) -> Path:
    """The same for JSON, which has no NaN: null stands for it."""
    return write_text(path, json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


# Probe → keys of its <probe>.json, by which a folder is known to hold its output.
_KEYS = {
    "alignment": ("model", "clouds", "population"),
    "stability": ("model", "figures", "population"),
    "runs": ("first", "differs", "runs"),
}


def check_output(probe: str, folder: Path) -> None:
    """Refuse a folder that holds what no probe has left: this one would write over it.

    Raises:
        ValueError: it does, or cannot be written.
    """
    check_place(folder)
    names = held(folder)
    ours = [name for name, keys in _KEYS.items() if _has_keys(folder / f"{name}.json", keys)]
    foreign = [name for name in names if name.partition(".")[0] == probe]  # that it would write over
    if names and probe not in ours and (foreign or not ours):
        raise ValueError(
            f"--output: {folder} holds other files ({some(foreign or names)}) and nothing that probe.py {probe} has "
            "left; name an empty folder, or a new one"
        )


def check_output_file(file: Path, keys: Sequence[str]) -> None:
    """Refuse to write over a file that is not of the same kind: JSON, its first line's or its own keys among `keys`.

    Raises:
        ValueError: it is of another kind, or cannot be written.
    """
    check_place(file.parent)
    if file.is_dir():
        raise ValueError(f"--output: {file} is a folder; name a file")
    if file.exists() and file.stat().st_size and not _has_keys(file, keys):
        raise ValueError(f"--output: {file} is there already, and is no output of this command; name another")


def _has_keys(file: Path, keys: Sequence[str]) -> bool:
    """Whether a file is a JSON mapping with these keys, or its first line is."""
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text if text.startswith("{\n") else text.partition("\n")[0])
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and all(key in content for key in keys)


def folder_name(name: str) -> str:
    """A name for files made of the last two parts of a path or hub id.

    >>> folder_name("runs/field/version_0/"), folder_name("google-t5/t5-small"), folder_name("mini")
    ('field_version_0', 'google-t5_t5-small', 'mini')
    """
    parts = [re.sub(r"[^\w.-]+", "-", part) for part in name.split("/") if part not in ("", ".", "..", "~")]
    return "_".join(parts[-2:]) or "model"


def leave(
    probe: str,
    model: str,
    output: Path | None,
    measure: Callable[[], Mapping[str, Any]],
    page: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any]], Any],
) -> int:
    """Measure, then write <probe>.json, .md and .png and print the page.

    Args:
        probe: name of the probe.
        model: name of what is measured.
        output: folder; without it runs/probes/<probe>_<model>.
        measure: returns what the JSON holds.
        page: makes Markdown of it.
        draw: makes a figure of it.

    Returns:
        The exit status. What the user can correct is a ValueError, and `probe.py` prints it.
    """
    folder = output or Path("runs/probes") / f"{probe}_{folder_name(model)}"
    check_output(probe, folder)
    found = measure()
    text = page(found)
    write_json(folder / f"{probe}.json", found)
    write_text(folder / f"{probe}.md", text)
    from modulant.reports.drawing.plotting import save

    save(draw(found), folder / f"{probe}.png")
    print(text)
    print(f"written: {folder}/{probe}.json, {probe}.md, {probe}.png")
    return 0
