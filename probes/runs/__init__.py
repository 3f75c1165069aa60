"""Several run folders side by side."""
