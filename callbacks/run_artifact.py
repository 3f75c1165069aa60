"""Leaves what was trained where anybody can load it: a folder of its own in the run folder."""

from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl


class RunArtifact(pl.Callback):
    """At the end of a fit, writes `modulator/` by `modulators.save_modulator`, with the run's last figures.

    Of an adapter, `adapter/`, which peft reads.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from modulators import AdaptedT5, ModulatedT5, save_modulator

        if trainer.is_global_zero and isinstance(pl_module, AdaptedT5):
            pl_module.save_adapter(Path(trainer.default_root_dir) / "adapter")
        if not trainer.is_global_zero or not isinstance(pl_module, ModulatedT5):
            return
        keys = ("val/loss", "val/exact_match", "relational/pearson", "relational/pearson_lift", "pentachoron/cv")
        figures = {key: float(cast(Any, value)) for key, value in trainer.callback_metrics.items() if key in keys}
        save_modulator(
            pl_module.modulator,
            Path(trainer.default_root_dir) / "modulator",
            backbone=pl_module.backbone,
            layers=pl_module.layers,
            figures=figures,
            geometry=pl_module.provenance,
        )
