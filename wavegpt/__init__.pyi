from .attention.cache import Cache
from .attention.kernels import interference_attention
from .config.arm import MlpConfig, WaveConfig
from .config.attention import AttentionConfig
from .config.embedding import AnnealConfig, EmbeddingConfig
from .config.training import LossConfig, OptimizerConfig, ProjectConfig
from .config.writing import Sampling, WritingConfig
from .export import load, save
from .model import WaveGPT
from .module import WaveLM
from .observed import Observed
from .presets import PRESETS, preset
from .sampling import generate, stream_text
from .training.losses import wave_loss
from .training.optimizer import WaveNativeOptimizer, build_optimizer

__all__ = [
    "PRESETS",
    "AnnealConfig",
    "AttentionConfig",
    "Cache",
    "EmbeddingConfig",
    "LossConfig",
    "MlpConfig",
    "Observed",
    "OptimizerConfig",
    "ProjectConfig",
    "Sampling",
    "WaveConfig",
    "WaveGPT",
    "WaveLM",
    "WaveNativeOptimizer",
    "WritingConfig",
    "build_optimizer",
    "generate",
    "interference_attention",
    "load",
    "preset",
    "save",
    "stream_text",
    "wave_loss",
]
