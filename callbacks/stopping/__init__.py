"""Stop a run early: signals, interruption between steps, divergence, monitors of keys that are never logged."""
