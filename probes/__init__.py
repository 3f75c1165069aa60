"""Measurements beside training, one folder or module a probe; `probe.py` imports one by name when it is asked for.

A probe's own top is light: what needs torch or matplotlib is imported once the command line has proved right.
"""
