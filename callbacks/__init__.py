"""Time on top: when a run measures, saves, stops, reports and shows itself.

Names are imported when they are first used, so that a wrong key on the command line is told before matplotlib is read.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callbacks.alpha_convergence import AlphaConvergence
    from callbacks.batch_seed import BatchSeed
    from callbacks.checkpoints import AtomicCheckpointIO, CheckpointError, RunCheckpoint, newest_checkpoint
    from callbacks.console import RunConsole
    from callbacks.divergence import Divergence
    from callbacks.first_validation import FirstValidation
    from callbacks.interruption import Interruptible
    from callbacks.metrics_csv import MetricsCSV
    from callbacks.pentachoron_health import PentachoronHealth
    from callbacks.predictions import Talk
    from callbacks.progress import RunProgress
    from callbacks.relational_alignment import RelationalAlignment
    from callbacks.run_artifact import RunArtifact
    from callbacks.run_report import RunReport
    from callbacks.run_wandb import RunWandb
    from callbacks.sharded import ShardedStrategy
    from callbacks.wandb_files import WandbFiles

_HOMES = {
    "AlphaConvergence": "alpha_convergence",
    "AtomicCheckpointIO": "checkpoints",
    "BatchSeed": "batch_seed",
    "CheckpointError": "checkpoints",
    "Divergence": "divergence",
    "FirstValidation": "first_validation",
    "Interruptible": "interruption",
    "MetricsCSV": "metrics_csv",
    "PentachoronHealth": "pentachoron_health",
    "RelationalAlignment": "relational_alignment",
    "RunArtifact": "run_artifact",
    "RunCheckpoint": "checkpoints",
    "RunConsole": "console",
    "RunProgress": "progress",
    "RunReport": "run_report",
    "RunWandb": "run_wandb",
    "ShardedStrategy": "sharded",
    "WandbFiles": "wandb_files",
    "Talk": "predictions",
    "newest_checkpoint": "checkpoints",
}

__all__ = [
    "AlphaConvergence",
    "AtomicCheckpointIO",
    "BatchSeed",
    "CheckpointError",
    "Divergence",
    "FirstValidation",
    "Interruptible",
    "MetricsCSV",
    "PentachoronHealth",
    "RelationalAlignment",
    "RunArtifact",
    "RunCheckpoint",
    "RunConsole",
    "RunProgress",
    "RunReport",
    "RunWandb",
    "ShardedStrategy",
    "Talk",
    "WandbFiles",
    "newest_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'callbacks' has no attribute '{name}'")
    return getattr(import_module(f"callbacks.{_HOMES[name]}"), name)
