"""What every modulator promises, as checks that run on any of them, shipped or user-supplied."""
