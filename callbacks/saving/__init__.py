"""What a run saves: checkpoints and the modulator's artefact."""
