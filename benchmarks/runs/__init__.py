"""What a run costs around its steps: its start, its batches, the Trainer, bytes between processes."""
