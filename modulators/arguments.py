"""What the arguments of modulators and of the modules that train them may be, known without torch and transformers.

Each check is called by the constructor of the class that it is named after, and by the command line before anything
heavy is imported. Its parameters are some of the constructor's, by name.
"""

import importlib.util
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from modulant.backbones.sizes import check_layers, check_positive, read_sizes

BackboneDtype = Literal["float32", "bfloat16"]
Compile = bool | Literal["reduce-overhead"]
Schedule = Literal["cosine", "constant"]
Adapter = Literal["lora", "ia3"]
CachePlace = Literal["memory", "disk"]
StoredDtype = Literal["float32", "bfloat16"]
GeometryKind = Literal["wordnet", "shuffled", "random", "part_of_speech", "none"]
MAX_ANCHORS = 20_000  # their similarities take its square times 4 bytes
_MAX_SEED = 2**63 - 1  # torch's generators take no more


def check_open_unit(name: str, value: float) -> None:
    """Raises:
    ValueError: `value` is not strictly between 0 and 1.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; it must lie between 0 and 1, both excluded")


def check_seed(name: str, value: int) -> None:
    """Raises:
    ValueError: `value` is no seed that every generator takes.
    """
    if value < 0:
        raise ValueError(f"{name} is {value}; it must not be negative")
    if value > _MAX_SEED:
        raise ValueError(f"{name} is {value}; it must be at most {_MAX_SEED}")


# The modules that are trained


def check_frozen(
    backbone: str,
    layers: Literal["all"] | list[int],
    lr: float,
    weight_decay: float,
    schedule: str,
    backbone_dtype: str,
    compile: Compile,
    seed: int,
    cache: str | None,
    cache_dtype: str | None,
    cache_limit_gib: float,
    cache_folder: str | None,
) -> None:
    """What every training over a frozen T5 asks."""
    if not 0 < lr < float("inf"):
        raise ValueError(f"model.lr must be positive, got {lr}")
    if not 0 <= weight_decay < float("inf"):
        raise ValueError(f"model.weight_decay must not be negative, got {weight_decay}")
    if schedule not in get_args(Schedule):
        raise ValueError(f"model.schedule is {schedule!r}; it must be cosine or constant")
    if backbone_dtype not in get_args(BackboneDtype):
        raise ValueError(f"model.backbone_dtype is {backbone_dtype!r}; it must be float32 or bfloat16")
    if not isinstance(compile, bool) and compile != "reduce-overhead":
        raise ValueError(f"model.compile is {compile!r}; it must be true, false or reduce-overhead")
    if isinstance(layers, str) and layers != "all":
        raise ValueError(f"model.layers is {layers!r}; it must be all, or a list such as [3, 4, 5]")
    check_seed("model.seed", seed)
    sizes = read_sizes(backbone)
    if not isinstance(layers, str):
        if sizes is not None:
            check_layers(layers, sizes.n_layers, "model.layers")
        elif not layers:
            check_layers(layers, 0, "model.layers")
    check_cache(layers, cache, cache_dtype, cache_limit_gib, cache_folder)


def check_cache(
    layers: Literal["all"] | list[int],
    cache: str | None,
    cache_dtype: str | None,
    cache_limit_gib: float,
    cache_folder: str | None,
) -> None:
    """Of frozen lower layers."""
    if cache not in (None, *get_args(CachePlace)):
        raise ValueError(f"model.cache is {cache!r}; it must be memory, disk or null")
    if cache_dtype not in (None, *get_args(StoredDtype)):
        raise ValueError(f"model.cache_dtype is {cache_dtype!r}; it must be float32, bfloat16 or null")
    if not 0 < cache_limit_gib < math.inf:
        raise ValueError(f"model.cache_limit_gib is {cache_limit_gib}; it must be positive and finite")
    if cache_folder is not None and not os.path.isdir(cache_folder):
        raise ValueError(f"model.cache_folder: no folder {cache_folder}; name one, or null for the run folder")
    if cache is not None and (isinstance(layers, str) or 0 in layers):
        raise ValueError(
            f"model.cache is {cache}, and model.layers ({layers}) holds layer 0: nothing below it is frozen; name "
            "upper layers alone, such as [3, 4, 5], or set model.cache to null"
        )


def check_adapted(
    adapter: str,
    n_parameters: int,
    backbone: str,
    layers: Literal["all"] | list[int],
    lr: float,
    weight_decay: float,
    schedule: str,
    backbone_dtype: str,
    compile: Compile,
    seed: int,
    cache: str | None,
    cache_dtype: str | None,
    cache_limit_gib: float,
    cache_folder: str | None,
) -> None:
    if adapter not in get_args(Adapter):
        raise ValueError(f"model.adapter is {adapter!r}; it must be lora or ia3")
    check_positive("model.n_parameters", n_parameters)
    if importlib.util.find_spec("peft") is None:
        raise ValueError("model: modulators.AdaptedT5 needs peft, which is not installed; pip install peft")
    check_frozen(
        backbone, layers, lr, weight_decay, schedule, backbone_dtype, compile, seed,
        cache, cache_dtype, cache_limit_gib, cache_folder,
    )  # fmt: skip


def check_pretraining(
    d_model: int,
    d_kv: int,
    d_ff: int,
    num_heads: int,
    num_layers: int,
    num_decoder_layers: int,
    lr: float,
    warmup_steps: int,
    seed: int,
) -> None:
    for name, value in (
        ("d_model", d_model),
        ("d_kv", d_kv),
        ("d_ff", d_ff),
        ("num_heads", num_heads),
        ("num_layers", num_layers),
        ("num_decoder_layers", num_decoder_layers),
        ("warmup_steps", warmup_steps),
    ):
        check_positive(f"model.{name}", value)
    if not 0 < lr < float("inf"):
        raise ValueError(f"model.lr must be positive, got {lr}")
    check_seed("model.seed", seed)


def check_steps(schedule: str, steps: int | float) -> None:
    """Raises:
    ValueError: a rate that is to fall over no steps, or over steps without end.
    """
    if schedule == "cosine" and not 0 < steps < float("inf"):
        raise ValueError(
            f"trainer: the learning rate falls as a cosine over {steps} steps; set max_epochs or max_steps"
        )


# How a trained model is asked


def check_scales(alpha_scales: Sequence[float]) -> None:
    """Raises:
    ValueError: no scale of α at all, or one that is not finite or negative.
    """
    if not alpha_scales:
        raise ValueError("alpha_scales is empty; it must be a list such as [0, 0.5, 1, 2]")
    for scale in alpha_scales:
        if not 0 <= scale < math.inf:
            raise ValueError(f"alpha_scales: {scale} is no factor for alpha; it must be finite and not negative")


def check_asking(
    temperature: float, top_p: float, max_new_tokens: int, samples: int, seed: int, next_tokens: int
) -> None:
    if not 0 <= temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be 0, which is greedy, or positive")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is {top_p}; it must lie above 0 and not above 1")
    check_positive("max_new_tokens", max_new_tokens)
    check_positive("samples", samples)
    check_seed("seed", seed)
    if next_tokens < 0:
        raise ValueError(f"next_tokens is {next_tokens}; it must not be negative")
    if temperature == 0 and samples > 1:
        raise ValueError(f"samples is {samples}, and greedy answers are all equal; give a temperature, such as 0.8")


# Modulators


def check_field(
    expert_ks: Sequence[int],
    expert_edim: int,
    initial_alpha: float,
    alpha_min: float,
    alpha_max: float,
    alpha_bound: str,
    null_space_fraction: float,
    null_space_position: str,
    deform_scale: float,
    null_space_seed: int,
) -> None:
    _check_experts(expert_ks, expert_edim, deform_scale)
    _check_alphas(initial_alpha, alpha_min, alpha_max, alpha_bound)
    if not 0 <= null_space_fraction < 1:
        raise ValueError(f"null_space_fraction is {null_space_fraction}; it must be at least 0 and below 1")
    if null_space_position not in ("tail", "scattered"):
        raise ValueError(f"null_space_position is {null_space_position!r}; it must be 'tail' or 'scattered'")
    check_seed("null_space_seed", null_space_seed)


def _check_experts(expert_ks: Sequence[int], expert_edim: int, deform_scale: float) -> None:
    if not expert_ks:
        raise ValueError("expert_ks is empty; the field needs one expert at least")
    for k in expert_ks:
        check_positive("expert_ks", k)
    if len(set(expert_ks)) < len(expert_ks):
        raise ValueError(f"expert_ks is {tuple(expert_ks)}; its members must be distinct")
    check_positive("expert_edim", expert_edim)
    if expert_edim < max(expert_ks):
        raise ValueError(f"expert_edim is {expert_edim}; a simplex of k = {max(expert_ks)} needs as many dimensions")
    if not 0 < deform_scale < float("inf"):
        raise ValueError(f"deform_scale is {deform_scale}; it must be positive and finite")


def _check_alphas(initial_alpha: float, alpha_min: float, alpha_max: float, alpha_bound: str) -> None:
    if not 0 <= alpha_min < 1:
        raise ValueError(f"alpha_min is {alpha_min}; it must be at least 0 and below 1")
    if not alpha_min < alpha_max <= 1:
        raise ValueError(f"alpha_max is {alpha_max}; it must lie above alpha_min ({alpha_min}) and not above 1")
    if not alpha_min < initial_alpha < alpha_max:
        raise ValueError(
            f"initial_alpha is {initial_alpha}; it must lie between alpha_min ({alpha_min}) and alpha_max ({alpha_max})"
        )
    if alpha_bound not in ("smooth", "clamp"):
        raise ValueError(f"alpha_bound is {alpha_bound!r}; it must be 'smooth' or 'clamp'")


def check_lerp(n_geometric_dims: int, initial_alpha: float, geometry: Any, seed: int) -> None:
    check_positive("n_geometric_dims", n_geometric_dims)
    check_open_unit("initial_alpha", initial_alpha)
    check_seed("seed", seed)
    if isinstance(geometry, str):
        check_geometry_file(Path(geometry))


def check_geometry_file(path: Path) -> None:
    """Raises:
    ValueError: no kind of file that can hold a matrix, or it is not there.
    """
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"geometry is {path}; it must be a .npy or .safetensors file")
    if not os.path.isfile(path):  # which says no of a name that cannot be one
        raise ValueError(f"geometry {path} cannot be read: there is no such file")


# The geometry of a modulator's embeddings


def check_geometry(
    kind: str, anchors: str, n_anchors: int | None, n_neighbours: int, unmatched: str, seed: int
) -> None:
    for key, value, known in (
        ("kind", kind, get_args(GeometryKind)),
        ("anchors", anchors, ("all", "training")),
        ("unmatched", unmatched, ("zero", "random")),
    ):
        if value not in known:
            raise ValueError(f"model.geometry.{key} is {value!r}; it must be one of {', '.join(known)}")
    if n_anchors is not None and n_anchors < 2:
        raise ValueError(f"model.geometry.n_anchors is {n_anchors}; it must be at least 2, or null for all")
    if n_anchors is not None and n_anchors > MAX_ANCHORS:
        raise ValueError(f"model.geometry.n_anchors is {n_anchors}; it must be at most {MAX_ANCHORS}")
    if n_neighbours < 1:
        raise ValueError(f"model.geometry.n_neighbours is {n_neighbours}; it must be at least 1")
    check_seed("model.geometry.seed", seed)


def refuse_geometry(modulator: str) -> ValueError:
    """What to say of a geometry for a modulator that has no embeddings."""
    return ValueError(
        f"model.geometry: a {modulator} has no geometric embeddings; it must be null, or the modulator a LerpModulator"
    )


def check_alignment(n_dims: int, width: int) -> None:
    """Raises:
    ValueError: more geometric dimensions than the stream has.
    """
    if n_dims > width:
        raise ValueError(
            f"model.modulator.n_geometric_dims is {n_dims}; to be aligned with a stream of width {width} it must not "
            "be larger"
        )


# Class → its check, for the command line.
CHECKS: Mapping[str, Callable[..., None]] = {
    "AdaptedT5": check_adapted,
    "FieldModulator": check_field,
    "Geometry": check_geometry,
    "LerpModulator": check_lerp,
    "ModulatedT5": check_frozen,
    "PretrainT5": check_pretraining,
}
