"""What a run measures, and when."""
