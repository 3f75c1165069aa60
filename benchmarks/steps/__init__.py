"""What a training step or a pass costs, beside the plain way to do the same."""
