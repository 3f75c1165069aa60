"""What is worth measuring on a GPU: `python -m benchmarks.gpu`, apart from the sections of the page."""
