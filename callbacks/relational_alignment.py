"""Do the representations follow WordNet's taxonomy more closely than the frozen backbone's own did?"""

from collections.abc import Mapping
from typing import Any, Literal

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

import metrics
from callbacks.interfaces import modulated, population_source
from callbacks.logs import log_at_validation_end, log_now, plain
from callbacks.representations import encode_population, entry_representations

_PREFIXES = ("", *(f"{population}/" for population in metrics.POPULATIONS))


class RelationalAlignment(L.Callback):
    """Pearson, Spearman, gradient, bands and preservation over the whole population, and their lift over the base.

    Before the first step: static embeddings, the original encoder, a randomly initialised one, and the modulated
    encoder as it stands. Then the modulated encoder at the end of each validation. A module without a handle has no
    base: then its encoder's figures alone.

    Args:
        pairs: "all" pairs of distinct synsets, or the size of a seeded sample of them.
        seed: seed of the sample; of no effect with all pairs.
        baselines: whether to measure static embeddings and the randomly initialised encoder too.
    """

    def __init__(self, pairs: int | Literal["all"] = "all", seed: int = 42, baselines: bool = True) -> None:
        if pairs != "all" and (isinstance(pairs, bool) or not isinstance(pairs, int) or pairs < 2):
            raise ValueError(f"RelationalAlignment: pairs is {pairs!r}; it must be 'all' or an integer of at least 2")
        self.pairs, self.seed, self.baselines = pairs, seed, baselines
        self._baseline: dict[str, dict[str, float]] = {}
        self._history: list[dict[str, float]] = []
        self._metric: metrics.RelationalAlignment | None = None

    @property
    def state_key(self) -> str:
        return "RelationalAlignment"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._measure_baselines(trainer, pl_module)
        if trainer.global_step == 0:
            figures = self._check(trainer, pl_module)
            log_now(trainer, self._baseline_figures() | {f"relational/{key}": value for key, value in figures.items()})

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._measure_baselines(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        figures = {f"relational/{key}": value for key, value in self._check(trainer, pl_module).items()}
        if trainer.state.fn == TrainerFn.VALIDATING:
            figures |= self._baseline_figures()
        lift = "relational/pearson_lift"
        log_at_validation_end(pl_module, figures, bar=lift if lift in figures else "relational/pearson")

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._metric = None  # it holds a byte for each pair

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self._baseline, "history": self._history}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._baseline, self._history = state_dict["baseline"], state_dict["history"]

    def summary(self) -> dict[str, Any]:
        """For the report: figures of each baseline, and of the modulated encoder at each check, with its step."""
        return {
            "pairs": self.pairs,
            "seed": None if self.pairs == "all" else self.seed,
            "baseline": self._baseline,
            "first": self._history[0] if self._history else None,
            "last": self._history[-1] if self._history else None,
            "history": self._history,
        }

    def _measure_baselines(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._metric = None
        if modulated(module).handle is None:
            return
        self._baseline = {"original": self._figures(trainer, entry_representations(trainer, module, base=True))}
        if not self.baselines:
            return
        static = modulated(module).static_embed
        points = encode_population(trainer, module, lambda ids, mask: static(ids), "static embeddings")
        self._baseline["static"] = self._figures(trainer, points)
        encoder = modulated(module).random_encoder()
        if isinstance(encoder, nn.Module):
            encoder.to(module.device).eval()
        points = encode_population(trainer, module, encoder, "a random encoder")
        self._baseline["random"] = self._figures(trainer, points)

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
        points = entry_representations(trainer, module, base=False)
        figures = self._figures(trainer, points)
        if modulated(module).handle is not None:
            figures |= lifts(figures, self._baseline["original"])
            original = entry_representations(trainer, module, base=True)
            figures["preservation"] = metrics.preservation(original, points).item()
        self._history.append({"step": trainer.global_step, **figures})
        return figures

    def _figures(self, trainer: L.Trainer, points: Tensor) -> dict[str, float]:
        if self._metric is None:
            source = population_source(trainer)
            distances, held_out = source.path_distances(), source.population.held_out
            self._metric = metrics.RelationalAlignment(distances, held_out, self.pairs, self.seed)
        # Apple's GPU has no fp64.
        self._metric.to("cpu" if points.device.type == "mps" else points.device)
        # Reset here: states that were made in a validation's inference mode could not be written to outside of it.
        self._metric.reset()
        self._metric.update(points)
        return plain(self._metric.compute())

    def _baseline_figures(self) -> dict[str, float]:
        return {
            f"relational/{name}/{key}": value
            for name, figures in self._baseline.items()
            for key, value in figures.items()
        }


def lifts(modulated: Mapping[str, float], original: Mapping[str, float]) -> dict[str, float]:
    """Modulated − original of Pearson, Spearman and gradient, and the same in percent of |original|."""
    figures = {}
    for key in (prefix + name for prefix in _PREFIXES for name in ("pearson", "spearman", "gradient")):
        if key in modulated and key in original:
            lift = modulated[key] - original[key]
            figures[f"{key}_lift"] = lift
            if original[key] != 0:
                figures[f"{key}_lift_percent"] = 100 * lift / abs(original[key])
    return figures
