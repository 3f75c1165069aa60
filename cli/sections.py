"""What a configuration may hold and name. Nothing is imported to know it.

A configuration may come from a stranger. So the classes that one can name are listed here, each by itself; whatever is
not on the list is not even imported, neither by our own check nor by the parser.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cli.signatures import Signature, exported, names_of

# Key in the configuration, and the callback that it configures. What its arguments may be says callbacks.arguments.
SECTIONS = {
    "checkpoint": "callbacks.RunCheckpoint",
    "alpha_convergence": "callbacks.AlphaConvergence",
    "relational": "callbacks.RelationalAlignment",
    "pentachoron": "callbacks.PentachoronHealth",
    "divergence": "callbacks.Divergence",
    "report": "callbacks.RunReport",
    "talk": "callbacks.Talk",
}

# What belongs to no class: key → type.
TOP_LEVEL: Mapping[str, Any] = {
    "seed_everything": bool | int,
    "output": str | None,
    "resume": str | None,
    "ckpt_path": Any,  # refused by name: a checkpoint's hyper-parameters would win over what is given
    "weights_only": bool | None,
    "verbose": bool,
    "return_predictions": bool | None,
}

TRAINER = "lightning.pytorch.Trainer"
GEOMETRY = "modulators.Geometry"

# Trainer argument → the classes that it may be built of. What takes a function to call is not among them, nor what
# would fight with this project's own progress bar and batches; this project's callbacks are in every run anyway.
_BUILT_OF = {
    "trainer.callbacks": (
        "lightning.pytorch.callbacks.DeviceStatsMonitor",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.callbacks.GradientAccumulationScheduler",
        "lightning.pytorch.callbacks.LearningRateMonitor",
        "lightning.pytorch.callbacks.ModelCheckpoint",
        "lightning.pytorch.callbacks.ModelSummary",
        "lightning.pytorch.callbacks.RichModelSummary",
        "lightning.pytorch.callbacks.StochasticWeightAveraging",
    ),
    "trainer.logger": (
        "callbacks.RunWandb",
        "lightning.pytorch.loggers.CSVLogger",
        "lightning.pytorch.loggers.CometLogger",
        "lightning.pytorch.loggers.MLFlowLogger",
        "lightning.pytorch.loggers.TensorBoardLogger",
        "lightning.pytorch.loggers.WandbLogger",
    ),
    "trainer.profiler": (
        "lightning.pytorch.profilers.AdvancedProfiler",
        "lightning.pytorch.profilers.PyTorchProfiler",
        "lightning.pytorch.profilers.SimpleProfiler",
    ),
    "trainer.strategy": (
        "callbacks.ShardedStrategy",
        "lightning.pytorch.strategies.DDPStrategy",
        "lightning.pytorch.strategies.FSDPStrategy",
        "lightning.pytorch.strategies.SingleDeviceStrategy",
    ),
    "trainer.plugins": (
        "lightning.pytorch.plugins.DoublePrecision",
        "lightning.pytorch.plugins.HalfPrecision",
        "lightning.pytorch.plugins.MixedPrecision",
        "lightning.pytorch.plugins.environments.KubeflowEnvironment",
        "lightning.pytorch.plugins.environments.LSFEnvironment",
        "lightning.pytorch.plugins.environments.LightningEnvironment",
        "lightning.pytorch.plugins.environments.MPIEnvironment",
        "lightning.pytorch.plugins.environments.SLURMEnvironment",
        "lightning.pytorch.plugins.environments.TorchElasticEnvironment",
    ),
}
# Names that stand for a class of Lightning's, without a module.
SHORT_NAMES = {
    "trainer.profiler": ("simple", "advanced", "pytorch", "xla"),
    "trainer.strategy": (
        "auto",
        *(
            f"ddp{start}{unused}"
            for start in ("", "_spawn", "_fork", "_notebook")
            for unused in ("", "_find_unused_parameters_false", "_find_unused_parameters_true")
        ),
        *(f"deepspeed{stage}" for stage in ("", "_stage_1", "_stage_2", "_stage_2_offload", "_stage_3")),
        *("deepspeed_stage_3_offload", "deepspeed_stage_3_offload_nvme", "fsdp", "fsdp_cpu_offload"),
        *("single_device", "single_tpu", "single_xla", "xla", "xla_debug"),
    ),
}


def model_classes() -> dict[str, Signature]:
    """Name in a configuration → LightningModule."""
    return exported("modulators", "LightningModule")


def data_classes() -> dict[str, Signature]:
    """Name in a configuration → LightningDataModule."""
    return exported("datamodules", "LightningDataModule")


def modulator_classes() -> dict[str, Signature]:
    """Name in a configuration → Modulator."""
    return exported("modulators", "Modulator")


def trainer_classes() -> dict[str, dict[str, str]]:
    """Trainer argument → either name of a class that it may be built of → the name that the class is exported by."""
    return {key: {name: path for path in paths for name in names_of(path)} for key, paths in _BUILT_OF.items()}


def allowlist(trusted: Iterable[str] = ()) -> list[str]:
    """Every name that the parser may import: of each class where it is exported, and where it is defined.

    Args:
        trusted: names of a user's own classes.
    """
    own = [*model_classes(), *data_classes(), *modulator_classes(), *SECTIONS.values(), GEOMETRY]
    names = {name for path in own for name in names_of(path)}
    return sorted(names.union(trusted, *trainer_classes().values()))
