"""What a run shows: console lines, progress bar, report."""
