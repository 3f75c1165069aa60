"""A modulator and its controls over several seeds: planned, run, compared."""
