"""Batteries of measurements, one module a probe, each with figures, JSON and Markdown to show for it.

`probe.py` imports a probe by name when it is asked for; nothing is imported here. A probe's own top is light too:
what needs torch or matplotlib is imported once the command line has proved right.
"""
