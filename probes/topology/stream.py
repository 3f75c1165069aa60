"""The whole model, a block at a time: each is on disk as soon as it is done, for an interrupted command to resume."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from modulant.reports.run.folder import finite
from modulant.storage import append_line, write_whole
from probes.options import with_bar
from probes.topology import PARTS
from probes.topology.initial import initial_sd
from probes.topology.layout import Block, Layout, Stored
from probes.topology.measure import Carry, Row, carried, matrix_row, measure_block
from probes.topology.positions import position_rows
from probes.topology.reader import Weights, without_duplicates


@dataclass(frozen=True)
class Settings:
    """What is measured, and how.

    Attributes:
        layers: of each stack; None: all.
        only: of `PARTS`.
        ranks: way of `RANKS`.
        seed: of the permutations.
    """

    layers: tuple[int, ...] | None = None
    only: tuple[str, ...] = PARTS
    ranks: str = "gram"
    seed: int = 42


@dataclass
class Found:
    """Rows by part, and what was not measured.

    Attributes:
        rows: part → rows, in the order of the model.
        duplicates: tensors that hold the same as another one.
        resumed: units that an earlier measurement had done.
        memory: largest anonymous memory of the process between units, in bytes; None where the system does not say.
    """

    rows: dict[str, list[Row]]
    duplicates: list[str] = field(default_factory=list)
    resumed: int = 0
    memory: int | None = None


class Journal:
    """A file with a line for each unit that is done, below a line that says of what.

    Args:
        path: of the file.
        fingerprint: of model and settings.
        resume: use what is there of the same fingerprint; else begin anew.
    """

    def __init__(self, path: Path, fingerprint: str, resume: bool) -> None:
        self.path = path
        self.done: dict[str, dict[str, list[Row]]] = {}
        header = {"fingerprint": fingerprint}
        if resume and path.is_file():
            lines = list(_whole_lines(path))
            if lines and lines[0] != header:
                raise ValueError(
                    f"--resume: {path} is of another model or of other settings; leave --resume out to begin anew"
                )
            self.done = {line["unit"]: line["rows"] for line in lines[1:]}
        text = [header, *({"unit": unit, "rows": rows} for unit, rows in self.done.items())]
        write_whole(path, "".join(json.dumps(line) + "\n" for line in text))

    def add(self, unit: str, rows: dict[str, list[Row]]) -> None:
        self.done[unit] = finite(rows)
        append_line(self.path, json.dumps({"unit": unit, "rows": self.done[unit]}) + "\n")


def measure_model(
    weights: Weights,
    layout: Layout,
    settings: Settings,
    journal: Journal,
) -> Found:
    """Measure every block, then the tables beside them.

    Args:
        weights: of the model.
        layout: of its files.
        settings: what is measured.
        journal: gets each unit as soon as it is done.

    Raises:
        ValueError: a tensor cannot be read, or the disk refuses a line of the journal.
    """
    blocks = [b for b in layout.blocks if settings.layers is None or b.layer in settings.layers]
    tables, duplicates = _tables(weights, layout) if "matrices" in settings.only else ([], [])
    if "positions" in settings.only:
        biases = [name for name, kind in layout.kinds.items() if kind == "position_bias"]
        tables += [Stored(name, ("position_bias",), layout.modules[name]) for name in biases]
    units: list[Block | Stored] = [*blocks, *tables]
    found = Found({part: [] for part in PARTS}, duplicates, len(journal.done), anonymous_memory())
    before: Block | Carry | None = None
    with torch.inference_mode():
        for unit in with_bar(units, "blocks"):
            key = _key(unit)
            if isinstance(unit, Stored):
                before = None  # tables come last, and are large
                if key not in journal.done:
                    journal.add(key, _table_rows(unit, weights, layout, settings))
            elif key in journal.done:
                before = unit  # what is needed of it is computed when a block follows that is not done
            else:
                if _location(before) != unit.location:
                    before = None
                carry = carried(before, weights, settings.only) if isinstance(before, Block) else before
                config = layout.configs[unit.location]
                rows, before = measure_block(unit, weights, config, carry, settings.ranks, settings.seed, settings.only)
                journal.add(key, rows)
            if (memory := anonymous_memory()) is not None:
                found.memory = max(memory, found.memory or 0)
    for unit in units:
        for part, done in journal.done[_key(unit)].items():
            found.rows[part] += done
    return found


def anonymous_memory() -> int | None:
    """Memory of this process without mapped files, in bytes; None where the system does not say."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon:")]
    return int(sizes[0]) * 1024 if sizes else None


def _whole_lines(path: Path) -> Iterator[Row]:
    """Lines of the journal; a killed process may have left half of the last one."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return


def _key(unit: Block | Stored) -> str:
    return f"{unit.location}/{unit.layer}" if isinstance(unit, Block) else f"table/{unit.name}"


def _location(before: Block | Carry | None) -> str | None:
    return before.block.location if isinstance(before, Carry) else before.location if before else None


def _tables(weights: Weights, layout: Layout) -> tuple[list[Stored], list[str]]:
    """Tables that differ, and names of the others."""
    tables = {table.name: table for table in layout.tables if table.name is not None}
    kept, again = without_duplicates(weights, sorted(tables, key=lambda name: (tables[name].kinds, name)))
    return [tables[name] for name in kept], again


def _table_rows(table: Stored, weights: Weights, layout: Layout, settings: Settings) -> dict[str, list[Row]]:
    assert table.name is not None
    (kind,) = table.kinds
    if kind == "position_bias":
        config = next(iter(layout.configs.values()))
        bias = weights.read(table.name)
        return {"positions": position_rows(table.name, table.module, bias, config, settings.seed)}
    about = {"name": table.name, "kind": kind, "location": None, "layer": None}
    config = next(iter(layout.configs.values()))
    sd = initial_sd(config, kind, layout.blocks[0].shape) if layout.blocks else None
    return {"matrices": [matrix_row(weights.read(table.name).flatten(1), about, sd, settings.ranks)]}
