from .batch_seed import BatchSeed
from .loggers.metrics_csv import MetricsCSV
from .loggers.wandb import RunWandb
from .loggers.wandb_files import WandbFiles
from .measures.alpha_convergence import AlphaConvergence
from .measures.first_validation import FirstValidation
from .measures.modulator_health import ModulatorHealth
from .measures.pentachoron_health import PentachoronHealth
from .measures.relational_alignment import RelationalAlignment
from .measures.word_similarity import WordSimilarity
from .reporting.console import RunConsole
from .reporting.progress import RunProgress
from .reporting.report import RunReport
from .saving.artifact import RunArtifact
from .saving.checkpoints import RunCheckpoint
from .saving.files import AtomicCheckpointIO, CheckpointError, newest_checkpoint
from .sharded import ShardedStrategy
from .stopping.divergence import Divergence
from .stopping.interruption import Interruptible
from .stopping.monitors import Monitors
from .talk import Talk
from .writing import Writing

__all__ = [
    "AlphaConvergence",
    "AtomicCheckpointIO",
    "BatchSeed",
    "CheckpointError",
    "Divergence",
    "FirstValidation",
    "Interruptible",
    "MetricsCSV",
    "ModulatorHealth",
    "Monitors",
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
    "WordSimilarity",
    "Writing",
    "newest_checkpoint",
]
