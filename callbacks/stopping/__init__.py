"""Stop a run early: signals, interruption between steps, divergence."""
