"""Each measures a ratio, in one run with its parity; run from a checkout, not installed."""
