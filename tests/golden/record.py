"""Records the golden traces: `python tests/golden/record.py` (from the root of the project).

To be run when the bundled backbone, the data's order or a default of a configuration changes on purpose, and only then.
"""

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
STEPS = 20
NAMES = ("field", "lerp", "field_relational", "lerp_relational")


def trace(name: str) -> list[float]:
    """Training losses of the first steps of configs/<name>.yaml, on one CPU thread.

    ``field`` and ``lerp`` are of the lemma's loss (nats per target token) at the settings of configs/lemma.yaml, the
    field with the source's gate and LERP at an α of 0.01; ``…_relational`` are of the configurations as they are.
    """
    import lightning.pytorch as pl
    import torch
    import yaml

    import datamodules
    import modulators
    from cli.running.parser import quiet

    quiet()
    file, _, relational = name.partition("_")
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / f"{file}.yaml").read_text())
    if not relational:
        _make_lemma(config)
    losses: list[float] = []

    class Listen(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
            losses.append(float(outputs["loss"]))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pl.seed_everything(config["seed_everything"], verbose=False)
        model, data = config["model"]["init_args"], config["data"]["init_args"]
        kind = getattr(modulators, model["modulator"]["class_path"].removeprefix("modulators."))
        arguments = model["modulator"]["init_args"]
        # No geometry: its eigenvectors differ in their last digits from one processor to the next.
        model = {**model, "modulator": lambda stream: kind(stream, **arguments), "geometry": None}
        if model["objective"] is not None:
            model["objective"] = modulators.RelationalObjective(**model["objective"]["init_args"])
        module = modulators.ModulatedT5(**model)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=STEPS,
            max_epochs=config["trainer"]["max_epochs"],
            gradient_clip_val=config["trainer"]["gradient_clip_val"],
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Listen()],
        )
        trainer.fit(module, datamodule=datamodules.WordNetDataModule(**{**data, "split": "entry"}))
    finally:
        torch.set_num_threads(threads)
    return losses


def _make_lemma(config: dict[str, Any]) -> None:
    """The settings that these configurations had before they trained the relation."""
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    model |= {"lr": 1e-3, "weight_decay": 0.01, "objective": None}
    data |= {"batch_size": 32, "near_pairs": None}
    config["trainer"]["max_epochs"] = 10
    arguments = model["modulator"]["init_args"]
    arguments |= {"gate": "source"} if "gate" in arguments else {"initial_alpha": 0.01}


def main() -> None:
    sys.path.insert(0, str(ROOT))
    for name in NAMES:
        losses = trace(name)
        (Path(__file__).parent / f"{name}.json").write_text(json.dumps(losses, indent=1) + "\n")
        print(f"{name}: {losses[0]:.6f} … {losses[-1]:.6f}")


if __name__ == "__main__":
    main()
