"""Save the trained modulator or adapter as a loadable folder in the run folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from callbacks.logs import announce
from callbacks.saving.checkpoints import LAST, RunResult, result_of
from callbacks.saving.files import load_verified


class RunArtifact(pl.Callback):
    """Writes `modulator/` at the end of a fit, by `modulators.save_modulator`, with a card from the run's report.

    For an adapter, writes `adapter/`, which PEFT loads; for a module that names an ``artefact``, what its
    ``save_artefact`` writes. The weights are those that `RunCheckpoint` names as the run's result: the last, the best
    of what it monitors, or the last healthy ones.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from modulators import save_modulator
        from modulators.training.controls.adapted import Adapted
        from modulators.training.modulated import Modulated

        folder = Path(trainer.default_root_dir)
        if not trainer.is_global_zero:
            return
        if isinstance(pl_module, Adapted | Modulated):
            name = "adapter" if isinstance(pl_module, Adapted) else "modulator"
        elif (name := getattr(pl_module, "artefact", "")) == "":
            return
        result = result_of(trainer)
        if result.reason != LAST:
            announce(trainer, f"{name}/ is of step {result.step}: {result.reason}")
        with weights_of(pl_module, result):
            if isinstance(pl_module, Adapted):
                pl_module.save_adapter(folder / name)
                return
            if not isinstance(pl_module, Modulated):
                pl_module.save_artefact(folder / name)  # type: ignore[operator]
                return
            save_modulator(
                pl_module.modulator,
                folder / name,
                backbone=pl_module.backbone,
                layers=pl_module.layers,
                report=_report_of(folder, trainer.global_step),
                geometry=pl_module.provenance,
                backbone_revision=pl_module.backbone_revision,
                family=pl_module.family_name,
            )


@contextmanager
def weights_of(module: pl.LightningModule, result: RunResult) -> Iterator[None]:
    """The module with the weights of a run's result; afterwards with its own again."""
    if result.checkpoint is None:
        yield
        return
    own = {key: value.clone() for key, value in module.state_dict().items()}
    module.load_state_dict(load_verified(result.checkpoint)["state_dict"])
    try:
        yield
    finally:
        module.load_state_dict(own)


def _report_of(folder: Path, step: int) -> dict[str, Any] | None:
    """The run's report if it is of this step: the report callback runs before this one; None for an older report."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return report if (report["run"]["stage"], report["run"]["steps"]) == ("fit", step) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
