"""Save checkpoints and the modulator's artefact."""
