"""The same tiny T5s as for modulators."""

from tests.modulators.conftest import backbone, backbones, tokens

__all__ = ["backbone", "backbones", "tokens"]
