"""Configuration of a wave language model: one frozen dataclass a part, each refusing what cannot be built.

A `WaveConfig` is an arm of an experiment: the model, its loss and its optimizer. Sections may be given as mappings, as
a YAML file holds them. Defaults are the careful choices; `wavegpt.presets` names others. Imports no torch.
"""

from wavegpt.config.arm import MlpConfig, WaveConfig
from wavegpt.config.attention import AttentionConfig
from wavegpt.config.embedding import AnnealConfig, EmbeddingConfig
from wavegpt.config.training import LossConfig, OptimizerConfig, ProjectConfig
from wavegpt.config.writing import Sampling, WritingConfig

__all__ = [
    "AnnealConfig",
    "AttentionConfig",
    "EmbeddingConfig",
    "LossConfig",
    "MlpConfig",
    "OptimizerConfig",
    "ProjectConfig",
    "Sampling",
    "WaveConfig",
    "WritingConfig",
]
