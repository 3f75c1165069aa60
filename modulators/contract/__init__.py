"""The contract of a modulator: checks that run on any of them, shipped or user-supplied."""
