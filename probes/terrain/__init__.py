"""probe.py terrain: geometry of a vocabulary, and of the stream layer by layer."""
