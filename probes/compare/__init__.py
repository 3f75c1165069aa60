"""probe.py compare: what batteries found of one or several models, side by side, and what it makes of known claims."""
