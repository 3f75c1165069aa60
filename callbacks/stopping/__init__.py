"""How a run ends before its time: signals, interruptions, divergence."""
