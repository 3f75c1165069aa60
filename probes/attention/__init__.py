"""probe.py attention: entropies, sinks and heads by layer, a lens, and what they say of confidence."""
