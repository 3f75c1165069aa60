"""Artefacts: a trained modulator as a folder that can be saved, loaded and published, with a model card."""

from modulators.artifact.pretrained import (
    PretrainedModulator,
    attach_pretrained,
    load_modulated,
    save_modulator,
    write_card,
)

__all__ = ["PretrainedModulator", "attach_pretrained", "load_modulated", "save_modulator", "write_card"]
