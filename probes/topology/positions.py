"""Biases of T5s by relative position: curves over signed distances, what they say of a stack, and their null."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

from modulant.geometry import bias_figures, bucket_spans, permuted_figures
from modulant.geometry.weights.position_bias import NAMES

Row = dict[str, Any]

PERMUTATIONS = 9999
_SOURCE_LOCAL, _SOURCE_GLOBAL = 2, 29  # bucket numbers up to which, and from which on


def position_rows(name: str, module: str, bias: Tensor, config: Any, seed: int) -> list[Row]:
    """A row a head of one table, and one of the table as a whole, with its null.

    Args:
        name: of the table in the files.
        module: its name in the model, which says stack and layer.
        bias: (buckets, heads).
        config: of the model.
        seed: of the permutations.
    """
    found = re.search(r"(encoder|decoder)\.block\.(\d+)\.", module)
    assert found is not None, module
    location, layer = found[1], int(found[2])
    spans = _spans(config, location == "encoder")
    used = spans[:, 1] > 0
    nearest, counts = spans[used].unbind(1)
    bias = bias.cpu()
    values = bias[used].mT
    figures = bias_figures(values, nearest, counts)
    null = permuted_figures(values, nearest, counts, PERMUTATIONS, seed + layer)
    about = {"name": name, "location": location, "layer": layer}
    order = nearest.argsort()
    rows: list[Row] = [
        {
            **about,
            "head": head,
            "argmax": int(nearest[curve.argmax()]),
            "range": float(curve.max() - curve.min()),
            **{figure: float(of_heads[head]) for figure, of_heads in figures.items()},
            "curve": [[int(nearest[i]), int(counts[i]), float(curve[i])] for i in order],
            "source/argmax_bucket": int(bias[:, head].argmax()),
            "source/distance_correlation": _pearson(bias[:, head]),
        }
        for head, curve in enumerate(values)
    ]
    whole = {figure: _against(float(figures[figure].mean()), null[figure]) for figure in NAMES}
    unused = [i for i, is_used in enumerate(used.tolist()) if not is_used]
    return [*rows, {**about, "head": None, "unused_buckets": unused, "whole": whole}]


def _spans(config: Any, both_sides: bool) -> Tensor:
    """Nearest distance and number of distances of each bucket, up to the largest distance that has its own."""
    n, limit = config.relative_attention_num_buckets, config.relative_attention_max_distance
    distances = torch.arange(-limit, limit + 1 if both_sides else 1)
    return bucket_spans(T5Attention._relative_position_bucket(distances, both_sides, n, limit), distances, n)


def _against(value: float, null: Tensor) -> dict[str, float]:
    """A mean over heads beside those of permuted curves; p two-sided."""
    away = (null - null.mean()).abs() >= abs(value - float(null.mean())) - 1e-12
    p = (1 + int(away.sum())) / (len(null) + 1)
    return {"value": value, "null": float(null.mean()), "null_sd": float(null.std()), "p": p}


def _pearson(values: Tensor) -> float:
    """Of a bias with the number of its bucket, in which both sides of the query follow each other."""
    pair = torch.stack((values.double(), torch.arange(len(values), dtype=torch.float64)))
    return float(torch.corrcoef(pair)[0, 1])


def figures_of_positions(rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float | None], int]:
    """Flat figures of the stacks, and the number of tests in them.

    Where each layer has a table, as in a UMT5, means are over layers too, and p is that of the layer with the smallest
    one times their number.
    """
    figures: dict[str, float | None] = {}
    n_tests = 0
    for location in dict.fromkeys(row["location"] for row in rows):
        place = f"positions/{location}"
        heads = [row for row in rows if row["location"] == location and row["head"] is not None]
        wholes = [row["whole"] for row in rows if row["location"] == location and row["head"] is None]
        for name in NAMES:
            parts = [whole[name] for whole in wholes]
            n_tests += 1
            for key, suffix in (("value", ""), ("null", "_null"), ("null_sd", "_null_sd")):
                values = [part[key] for part in parts]
                known = all(value is not None and value == value for value in values)
                figures[f"{place}/{name}{suffix}"] = sum(values) / len(values) if known else None
            known = figures[f"{place}/{name}"] is not None
            figures[f"{place}/{name}_p"] = min(1.0, min(part["p"] for part in parts) * len(parts)) if known else None
            n_tests -= not known
            figures[f"{place}/{name}_n"] = len(heads)
        figures[f"{place}/range"] = sum(row["range"] for row in heads) / len(heads)
        buckets = [row["source/argmax_bucket"] for row in heads]
        local, far = (sum(_kind(bucket) == kind for bucket in buckets) for kind in ("local", "global"))
        figures[f"source/{place}/local"], figures[f"source/{place}/global"] = local, far
        figures[f"source/{place}/mixed"] = len(buckets) - local - far
        by_number = [row["source/distance_correlation"] for row in heads]
        figures[f"source/{place}/distance_correlation"] = sum(by_number) / len(heads)
    return figures, n_tests


def _kind(bucket: int) -> str:
    return "local" if bucket <= _SOURCE_LOCAL else "global" if bucket >= _SOURCE_GLOBAL else "mixed"
