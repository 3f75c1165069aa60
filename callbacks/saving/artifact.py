"""Save the trained modulator or adapter as a loadable folder in the run folder."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl


class RunArtifact(pl.Callback):
    """Writes `modulator/` at the end of a fit, by `modulators.save_modulator`, with a card from the run's report.

    For an adapter, writes `adapter/`, which PEFT loads.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from modulators import AdaptedT5, ModulatedT5, save_modulator

        folder = Path(trainer.default_root_dir)
        if trainer.is_global_zero and isinstance(pl_module, AdaptedT5):
            pl_module.save_adapter(folder / "adapter")
        if not trainer.is_global_zero or not isinstance(pl_module, ModulatedT5):
            return
        save_modulator(
            pl_module.modulator,
            folder / "modulator",
            backbone=pl_module.backbone,
            layers=pl_module.layers,
            report=_report_of(folder, trainer.global_step),
            geometry=pl_module.provenance,
            backbone_revision=pl_module.backbone_revision,
        )


def _report_of(folder: Path, step: int) -> dict[str, Any] | None:
    """The run's report if it is of this step: the report callback runs before this one; None for an older report."""
    try:
        report: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return report if (report["run"]["stage"], report["run"]["steps"]) == ("fit", step) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
