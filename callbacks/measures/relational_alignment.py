"""Do the representations follow WordNet's taxonomy more closely than the frozen backbone's own did, and how surely?"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from callbacks.interfaces import OfModulated, modulated, population_source
from callbacks.logs import finite_floats, log_at_validation_end, log_now
from callbacks.measures.representations import encode_population, entry_representations, progress
from callbacks.measures.untrained import Figures, kept_figures
from callbacks.stopping.interruption import stop_requested, stop_together
from modulant import metrics
from modulant.settings import Interval, Seed, checked
from modulant.storage import content_key, kept, write_whole
from modulators.training.linears import faster_linears

BOOTSTRAP_FILE = "relational_bootstrap.npz"
CHAIN_DEPTH = 8


class RelationalAlignment(OfModulated):
    """Pearson, Spearman, gradient, bands and preservation over the whole population, and their lift over the base.

    Before the first step: static embeddings, the original encoder, a randomly initialised one, and the modulated
    encoder as it stands. Then the modulated encoder at the end of each validation. A module without a handle has no
    base: then its encoder's figures alone.

    At the end of a fit, and in a validation by itself, the Pearson lift gets a 95% interval by a bootstrap over
    synsets; its replicates go into `relational_bootstrap.npz` (``original`` and ``modulated``, replicates × all, train,
    mixed, held-out; ``further_original`` and ``further_modulated``, replicates × ``further``, names of more populations
    and of parts of speech), the same resamples in every run over the same population, so that runs can be compared in
    pairs.

    Args:
        pairs: ``all`` pairs of synsets, or the size of a seeded sample.
        seed: of the sample; without effect on all pairs.
        baselines: measure static embeddings and a randomly initialised encoder too.
        bootstrap: resamplings of the synsets behind the lift's 95% interval; 0: no interval.
    """

    @checked
    def __init__(
        self,
        pairs: Annotated[int, Interval(minimum=2)] | Literal["all"] = "all",
        seed: Seed = 42,
        baselines: bool = True,
        bootstrap: Literal[0] | Annotated[int, Interval(minimum=40)] = 1000,  # 40: the ends of a 95% interval
    ) -> None:
        self.pairs, self.seed, self.baselines, self.bootstrap = pairs, seed, baselines, bootstrap
        self._baseline: dict[str, dict[str, float]] = {}
        self._history: list[dict[str, float]] = []
        self._interval: dict[str, list[float]] = {}
        self._seconds = 0.0
        self._metric: metrics.RelationalAlignment | None = None

    @property
    def state_key(self) -> str:
        return "RelationalAlignment"

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self.bootstrap and trainer.is_global_zero:  # now, and not when it writes
            Path(trainer.default_root_dir).mkdir(parents=True, exist_ok=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        with self._timed():
            self._measure_baselines(trainer, pl_module)
            if trainer.global_step == 0:
                figures = {f"relational/{key}": value for key, value in self._check(trainer, pl_module).items()}
                log_now(trainer, self._baseline_figures() | figures)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == TrainerFn.VALIDATING:
            with self._timed():
                self._measure_baselines(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        with self._timed():
            figures = {f"relational/{key}": value for key, value in self._check(trainer, pl_module).items()}
            if trainer.state.fn == TrainerFn.VALIDATING:
                figures |= self._baseline_figures() | self._bound(trainer, pl_module)
        lift = "relational/pearson_lift"
        log_at_validation_end(pl_module, figures, bar=lift if lift in figures else "relational/pearson")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        figures: dict[str, float] = {}
        with self._timed():
            if not self._history or self._history[-1]["step"] != trainer.global_step:  # steps since the last validation
                figures = {f"relational/{key}": value for key, value in self._check(trainer, pl_module).items()}
            figures |= self._bound(trainer, pl_module)
        log_now(trainer, figures)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._metric = None  # it holds a byte for each pair

    def state_dict(self) -> dict[str, Any]:
        return {
            "baseline": self._baseline,
            "history": self._history,
            "interval": self._interval,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._baseline, self._history = state_dict["baseline"], state_dict["history"]
        self._interval, self._seconds = state_dict.get("interval", {}), state_dict.get("seconds", 0.0)

    def summary(self) -> dict[str, Any]:
        """For the report: figures of each baseline, and of the modulated encoder at each check, with its step."""
        return {
            "pairs": self.pairs,
            "seed": None if self.pairs == "all" else self.seed,
            "baseline": self._baseline,
            "first": self._history[0] if self._history else None,
            "last": self._history[-1] if self._history else None,
            "history": self._history,
            "interval": self._interval,
            "replicates": self.bootstrap,
            "seconds": self._seconds,
        }

    @contextmanager
    def _timed(self) -> Iterator[None]:
        """Counts what all of this costs a run, encoding included: the report says so."""
        began = time.monotonic()
        yield
        self._seconds += time.monotonic() - began

    def _measure_baselines(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._metric = None
        if modulated(module).handle is None:
            return
        clouds: dict[str, Callable[[], Tensor]] = {
            "original": partial(entry_representations, trainer, module, base=True)
        }
        if self.baselines:
            clouds |= {"static": partial(_static, trainer, module), "random": partial(_random, trainer, module)}
        self._baseline = {}
        for name, cloud in clouds.items():
            measured = partial(self._of_cloud, trainer, cloud)
            self._baseline[name] = self._kept(trainer, module, measured, name, learned=False)

    def _check(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
        if trainer.global_step == 0:
            figures = self._kept(trainer, module, lambda: self._measured(trainer, module), "first", learned=True)
        else:
            figures = self._measured(trainer, module)
        self._history.append({"step": trainer.global_step, **figures})
        self._interval = {}  # which was of the check before
        return figures

    def _kept(
        self, trainer: L.Trainer, module: L.LightningModule, compute: Callable[[], Figures], name: str, learned: bool
    ) -> Figures:
        return kept_figures(trainer, module, compute, name, self.pairs, self.seed, learned=learned)

    def _measured(self, trainer: L.Trainer, module: L.LightningModule) -> Figures:
        """Figures of the modulated encoder as it stands."""
        points = entry_representations(trainer, module, base=False)
        figures = self._figures(trainer, points)
        if modulated(module).handle is not None:
            figures |= metrics.lifts(figures, self._baseline["original"])
            original = entry_representations(trainer, module, base=True)
            figures["preservation"] = metrics.preservation(original, points).item()
        return figures

    def _of_cloud(self, trainer: L.Trainer, cloud: Callable[[], Tensor]) -> Figures:
        return self._figures(trainer, cloud())

    def _figures(self, trainer: L.Trainer, points: Tensor) -> dict[str, float]:
        if not bool(points.isfinite().all()):
            return {}  # of a training that has broken down, which others say in their own words
        if self._metric is None:
            source = population_source(trainer)
            distances, part, pos = source.path_distances(), source.population.part, source.parts_of_speech()
            self._metric = metrics.RelationalAlignment(distances, part, self.pairs, self.seed, pos)
        # Apple's GPU has no fp64.
        self._metric.to("cpu" if points.device.type == "mps" else points.device)
        # Reset here: states that were made in a validation's inference mode could not be written to outside of it.
        self._metric.reset()
        self._metric.update(points)
        return finite_floats(self._metric.compute()) | self._hierarchy(trainer, points)

    def _hierarchy(self, trainer: L.Trainer, points: Tensor) -> dict[str, float]:
        """Cosine along first-hypernym chains, and within lexicographer categories against the mean of all pairs."""
        source = population_source(trainer)
        chain = metrics.chain_decay(points, torch.from_numpy(source.hypernym_chains(CHAIN_DEPTH)))
        figures = {f"chain/depth_{depth}": cosine for depth, cosine in enumerate(chain["cosine"], start=1)}
        if len(points) > 1:
            clustering = metrics.category_clustering(points, torch.from_numpy(source.categories()[0]))
            figures |= {f"category/{key}": clustering[key] for key in ("within", "gap", "z")}
        return finite_floats(figures)

    def _bound(self, trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
        """The interval's ends, for the log. Every rank comes here; the first one works, and tells the others."""
        if not self.bootstrap or modulated(module).handle is None:
            return {}
        clouds = [entry_representations(trainer, module, base=base) for base in (True, False)]
        interval: dict[str, list[float]] = {}
        source = population_source(trainer)
        part, pos = source.population.part, source.parts_of_speech()
        if trainer.is_global_zero:
            with progress(trainer, metrics.bootstrap_steps(part, pos), "bootstrap") as shown:

                def advance() -> None:
                    if stop_requested(trainer):
                        raise _CutShortError
                    shown()

                distances = source.path_distances()
                content = (
                    torch.__version__,
                    clouds[0].device.type,
                    clouds[0].cpu(),
                    distances,
                    part,
                    pos,
                    self.bootstrap,
                )
                keep = partial(kept, "bootstrap", content_key(*content))
                with suppress(_CutShortError):
                    replicates = metrics.bootstrap_pearson(
                        clouds, distances, part, self.bootstrap, advance=advance, pos=pos, keep=keep
                    )
        stop_together(trainer)
        if trainer.is_global_zero:
            columns = metrics.bootstrap_columns(part, pos)
            (original, modulated_), n = replicates.numpy(), 1 + len(metrics.POPULATIONS)
            arrays = {
                "original": original[:, :n],
                "modulated": modulated_[:, :n],
                "further": np.array(columns[n:]),
                "further_original": original[:, n:],
                "further_modulated": modulated_[:, n:],
            }
            write_whole(Path(trainer.default_root_dir) / BOOTSTRAP_FILE, partial(np.savez_compressed, **arrays))
            found = metrics.lift_intervals(replicates[0], replicates[1], columns)
            interval = {name: list(ends) for name, ends in found.items()}
        self._interval = trainer.strategy.broadcast(interval)
        return {f"relational/{key}": value for key, value in metrics.interval_figures(self._interval).items()}

    def _baseline_figures(self) -> dict[str, float]:
        return {
            f"relational/{name}/{key}": value
            for name, figures in self._baseline.items()
            for key, value in figures.items()
        }


def _static(trainer: L.Trainer, module: L.LightningModule) -> Tensor:
    static = modulated(module).static_embed
    return encode_population(trainer, module, lambda ids, mask: static(ids), "static embeddings")


def _random(trainer: L.Trainer, module: L.LightningModule) -> Tensor:
    encoder = modulated(module).random_encoder()
    if isinstance(encoder, nn.Module):
        encoder.to(module.device).eval()
        with faster_linears(encoder):
            return encode_population(trainer, module, encoder, "a random encoder")
    return encode_population(trainer, module, encoder, "a random encoder")


class _CutShortError(Exception):
    """Ends work that nobody will wait for."""
