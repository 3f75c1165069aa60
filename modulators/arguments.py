"""What settings of modulators, and of the modules that train them, must fulfil together. Imports no torch.

The range of each one by itself stands in its constructor's annotation. Constructors call these checks, and so does the
command line, before anything heavy is imported.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from modulant.settings import Compile as Compile
from modulant.settings import Interval, NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, checked

Layers = Literal["all"] | list[NonNegativeInt]
BackboneDtype = Literal["float32", "bfloat16"]
Schedule = Literal["cosine", "constant"]
Adapter = Literal["lora", "ia3"]
CachePlace = Literal["memory", "disk"]
StoredDtype = Literal["float32", "bfloat16"]


def check_cache(layers: Literal["all"] | list[int], cache: str | None, cache_folder: str | None) -> None:
    """Refuse a cache of frozen lower blocks where none is frozen, or a folder that is not there.

    Raises:
        ValueError: either of these.
    """
    if cache_folder is not None and not os.path.isdir(cache_folder):
        raise ValueError(f"model.cache_folder: no folder {cache_folder}; name one, or null for the run folder")
    if cache is not None and (isinstance(layers, str) or 0 in layers):
        raise ValueError(
            f"model.cache is {cache}, and model.layers ({layers}) holds layer 0: nothing below it is frozen; name "
            "upper layers alone, such as [3, 4, 5], or set model.cache to null"
        )


def check_precision(precision: str | int | None) -> None:
    """Refuse a precision that would cast what learns, and with it the optimizer's state, from fp32 to another type.

    Of the names that Lightning has, that is every one but full and mixed precision: ``bf16-true``, ``16-true``,
    ``64-true`` and those of Transformer Engine.

    Raises:
        ValueError: it would.
    """
    if precision is not None and str(precision) not in ("32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed"):
        raise ValueError(
            f"trainer.precision is {precision}, which casts what learns and its optimizer too; these stay in fp32: it "
            "must be 32-true, bf16-mixed or 16-mixed; for a bf16 backbone add --config bf16.yaml"
        )


def check_objective(name: str, needs_synsets: bool, near_pairs: float | None) -> None:
    """Refuse an objective that compares synsets where batches are not of distinct ones.

    Raises:
        ValueError: they are not.
    """
    if needs_synsets and near_pairs is None:
        raise ValueError(
            f"data.near_pairs is null, and model.objective ({name}) compares synsets, so a batch must hold distinct "
            "ones: set it to a share, such as 0.25, or add --config relational.yaml"
        )


NO_MASKS = "data.mask_share is null; 0.15 is usual"


def refuse_masked(objective: str, why: str) -> ValueError:
    """The error for an objective with a task, which is an encoder's masked-language-model loss, where there is none."""
    return ValueError(
        f"model.objective: this {objective} needs the loss of a masked-language-model head: {why}. Or it must be a "
        "RelationalObjective with task 0, or a sum of objectives like it"
    )


def check_relational(all_pairs: float, nouns: float, verbs: float, task: float) -> None:
    """Refuse a relational objective by which nothing would be learnt.

    Raises:
        ValueError: all weights are 0.
    """
    if not any((all_pairs, nouns, verbs, task)):
        raise ValueError("all_pairs, nouns, verbs and task are all 0: nothing would be learnt; raise one")


def check_peft() -> None:
    """Refuse an adapter where peft is not installed.

    Raises:
        ValueError: it is not.
    """
    if importlib.util.find_spec("peft") is None:
        raise ValueError("model: LoRA and IA³ need peft, which is not installed; pip install peft")


def check_steps(schedule: str, steps: int | float) -> None:
    """Refuse a learning rate that is to fall over no steps, or over steps without end.

    Raises:
        ValueError: the schedule is cosine, and the number of steps is zero or infinite.
    """
    if schedule == "constant" or 0 < steps < float("inf"):
        return
    if steps <= 0:  # Lightning gives 0, or -1
        raise ValueError("trainer: max_steps or limit_train_batches is 0, so that nothing would be trained; raise it")
    raise ValueError("trainer: the learning rate falls as a cosine over inf steps; set max_epochs or max_steps")


# Comparison of answers


@dataclass(frozen=True)
class GenerationSettings:
    """How answers are generated.

    Attributes:
        alpha_scales: factors on α; the modulated model answers at each.
        temperature: 0 is greedy; otherwise tokens are sampled from softmax(logits / temperature).
        top_p: sample from the smallest set of tokens whose probability reaches this.
        max_new_tokens: of an answer, its end token included.
        samples: answers per prompt; greedy ones would be equal.
        seed: of the sampling.
        next_tokens: number of most likely first tokens to report with their probabilities.

    Raises:
        ValueError: a value out of its range.
    """

    alpha_scales: Sequence[NonNegativeFloat] = (1.0,)
    temperature: NonNegativeFloat = 0.0
    top_p: Annotated[float, Interval(exclusiveMinimum=0, maximum=1)] = 1.0
    max_new_tokens: PositiveInt = 16
    samples: PositiveInt = 1
    seed: Seed = 42
    next_tokens: NonNegativeInt = 0

    @checked
    def __post_init__(self) -> None:
        if not self.alpha_scales:
            raise ValueError("alpha_scales is empty; it must be a list such as [0, 0.5, 1, 2]")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError(
                f"samples is {self.samples}, but greedy answers are all equal; set a temperature, such as 0.8"
            )


# Modulators


# The field's defaults that depend on its gate.
FIELD_DEFAULTS: dict[str, dict[str, Any]] = {
    "source": {
        "initial_alpha": 0.01, "alpha_min": 0.001, "alpha_max": 0.35, "deform_scale": 0.05, "validity_gate": True
    },
    "centred": {
        "initial_alpha": 0.5, "alpha_min": 0.0, "alpha_max": 1.0, "deform_scale": 0.3, "validity_gate": False
    },
}  # fmt: skip


def check_field(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field's arguments with the defaults that depend on its gate in the place of null.

    Raises:
        ValueError: experts that are none or not distinct or have too few dimensions, alphas out of order, or an
            argument that contradicts the gate.
    """
    gate, features = arguments["gate"], arguments["features"]
    defaults = FIELD_DEFAULTS[gate]
    known = {key: defaults[key] if value is None and key in defaults else value for key, value in arguments.items()}
    expert_ks, expert_edim = known["expert_ks"], known["expert_edim"]
    if not expert_ks:
        raise ValueError("expert_ks is empty; the field needs at least one expert")
    if len(set(expert_ks)) < len(expert_ks):
        raise ValueError(f"expert_ks is {tuple(expert_ks)}; its members must be distinct")
    if expert_edim < max(expert_ks):
        raise ValueError(f"expert_edim is {expert_edim}; a simplex of k = {max(expert_ks)} needs as many dimensions")
    initial_alpha, alpha_min, alpha_max = (float(known[key]) for key in ("initial_alpha", "alpha_min", "alpha_max"))
    if not alpha_min < alpha_max:
        raise ValueError(f"alpha_max is {alpha_max}; it must lie above alpha_min ({alpha_min})")
    if not alpha_min < initial_alpha < alpha_max:
        raise ValueError(
            f"initial_alpha is {initial_alpha}; it must lie between alpha_min ({alpha_min}) and alpha_max ({alpha_max})"
        )
    if gate == "source" and features != "simplex":
        raise ValueError(f"features is {features}; the gate must be centred for any but simplex")
    if gate == "centred" and known["validity_gate"]:
        raise ValueError("validity_gate is true; a centred gate has no validity, so it must be false or null")
    return known


def check_geometry_file(path: Path) -> None:
    """Refuse a file that cannot hold a matrix, or is not there.

    Raises:
        ValueError: either of these.
    """
    if path.suffix not in (".npy", ".safetensors"):
        raise ValueError(f"geometry is {path}; it must be a .npy or .safetensors file")
    if not os.path.isfile(path):  # False, too, for a name that no file can have
        raise ValueError(f"geometry {path} cannot be read: there is no such file")


def refuse_geometry(modulator: str) -> ValueError:
    """The error for a geometry that is given to a modulator without embeddings."""
    return ValueError(
        f"model.geometry: a {modulator} has no geometric embeddings; it must be null, or the modulator a LerpModulator"
    )


def check_alignment(n_dims: int, width: int) -> None:
    """Refuse more geometric dimensions than the stream has.

    Raises:
        ValueError: there are more.
    """
    if n_dims > width:
        raise ValueError(
            f"model.modulator.n_geometric_dims is {n_dims}; to be aligned with a stream of width {width} it must not "
            "be larger"
        )
