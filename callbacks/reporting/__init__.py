"""What a run tells: console, progress bar, report."""
