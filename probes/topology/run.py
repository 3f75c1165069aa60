"""What is measured of a run folder: the files of its backbone, and what an adapter of low rank adds to them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from modulant.geometry import effective_ranks
from modulators.artifact.files import CONFIG
from probes.topology.layout import Layout
from probes.topology.reader import Weights

Row = dict[str, Any]

DRAWS = 20  # of Gaussian factors, the null of a change's ranks


@dataclass(frozen=True)
class Subject:
    """A model, or the backbone of a run.

    Attributes:
        name: to open its files by.
        note: what a run's folder holds besides, and whether that is measured; empty for a model.
        adapter: folder with factors of low rank.
    """

    name: str
    note: str = ""
    adapter: Path | None = None


def subject_of(name: str) -> Subject:
    """The model itself, or what the folder of a run or of an artefact names.

    Raises:
        ValueError: a run whose files cannot be read.
    """
    folder = Path(name).expanduser()
    try:
        for place in (folder, folder / "modulator"):
            if (place / CONFIG).is_file():
                about = _json(place / CONFIG)
                said = f"{name} holds a {about['modulator']}, which changes the stream and no weights"
                return Subject(
                    about["backbone"], f"{said}: these are the weights of its backbone, {about['backbone']}."
                )
        for place in (folder, folder / "adapter"):
            if (place / "adapter_config.json").is_file():
                about = _json(place / "adapter_config.json")
                base, kind = about["base_model_name_or_path"], about["peft_type"]
                said = f"{name} holds an adapter ({kind}) on {base}, whose weights these are"
                unlike = [key for key in ("rank_pattern", "alpha_pattern") if about.get(key)]
                if kind != "LORA" or about.get("use_dora") or unlike:
                    return Subject(base, f"{said}; what it changes is not of one low rank, and not measured.")
                return Subject(base, f"{said}; what it adds is measured apart.", place)
        if (folder / "config.yaml").is_file() and not (folder / "config.json").is_file():
            base = _backbone(yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8")))
            if base is None:
                raise ValueError("config.yaml names no backbone")
            said = f"{name} is a run that left neither modulator nor adapter"
            return Subject(
                base, f"{said}: these are the weights of its backbone, {base}; its checkpoints are not read."
            )
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f"{name}: the run cannot be read ({str(error).splitlines()[0]})") from error
    return Subject(name)


def change_rows(adapter: Path, weights: Weights, layout: Layout, seed: int) -> list[Row]:
    r"""A row for each matrix that ΔW = s·BA is added to: ‖ΔW‖ / ‖W‖, and its ranks beside those of Gaussian B and A.

    Raises:
        ValueError: a factor lacks the other one, or belongs to no matrix of the backbone.
    """
    about, state = _json(adapter / "adapter_config.json"), load_file(adapter / "adapter_model.safetensors")
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for key in sorted(key for key in state if key.endswith(".lora_A.weight")):
        path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        left, right = state.get(key.replace(".lora_A.", ".lora_B.")), state[key]
        found = [
            (block, stored)
            for block in layout.blocks
            for stored in block.tensors
            if f".{path}.weight".endswith(f".{stored.module}") or f".{stored.module}".endswith(f".{path}.weight")
        ]
        if left is None or len(found) != 1 or found[0][1].name is None:
            raise ValueError(f"{adapter}: {key} has no place in the backbone")
        (block, stored), rank = found[0], len(right)
        assert stored.name is not None
        scale = about["lora_alpha"] / (math.sqrt(rank) if about.get("use_rslora") else rank)
        singular = scale * _singular_values(left, right)
        gaussian = [
            effective_ranks(
                _singular_values(
                    torch.randn(left.shape, generator=generator), torch.randn(right.shape, generator=generator)
                )
            )
            for _ in range(DRAWS)
        ]
        ranks = effective_ranks(singular)
        names = ("stable_rank", "participation_ratio")
        rows.append(
            {
                "name": stored.name,
                "kind": stored.kinds[0] if len(stored.kinds) == 1 else "qkv" if len(stored.kinds) == 3 else "gate_up",
                "location": block.location,
                "layer": block.layer,
                "rank": rank,
                "share": float(singular.norm() / weights.read(stored.name).double().norm()),
                **{name: ranks[name] for name in names},
                "nulls": {name: sum(one[name] for one in gaussian) / DRAWS for name in names},
            }
        )
    return rows


def figures_of_changes(rows: list[Row]) -> dict[str, float | None]:
    """Means over layers, each rank beside its null; null where a change is zero."""
    figures: dict[str, float | None] = {}
    for kind, location in dict.fromkeys((row["kind"], row["location"]) for row in rows):
        group = [row for row in rows if (row["kind"], row["location"]) == (kind, location)]
        place = f"change/{kind}/{location}"
        figures[f"{place}/n"] = len(group)
        figures[f"{place}/share"] = sum(row["share"] for row in group) / len(group)
        for name in ("stable_rank", "participation_ratio"):
            values = [row[name] for row in group if row[name] == row[name]]
            figures[f"{place}/{name}"] = sum(values) / len(values) if values else None
            figures[f"{place}/{name}_null"] = sum(row["nulls"][name] for row in group) / len(group)
    return figures


def _singular_values(left: Tensor, right: Tensor) -> Tensor:
    """Of left @ right, by the triangles of both."""
    first = torch.linalg.qr(left.double(), mode="r").R
    second = torch.linalg.qr(right.double().mT, mode="r").R
    return torch.linalg.svdvals(first @ second.mT)


def _json(path: Path) -> Mapping[str, Any]:
    content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _backbone(settings: Any) -> str | None:
    """The value of the first ``backbone`` in a run's settings."""
    if isinstance(settings, Mapping):
        if isinstance(settings.get("backbone"), str):
            return str(settings["backbone"])
        found = (_backbone(value) for value in settings.values())
        return next((name for name in found if name is not None), None)
    return None
