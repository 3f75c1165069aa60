"""The command line, in the order of its work: read it, help, find the run folder, check it key by key, build and run.

Everything here but `run` is read in a blink: whatever is wrong with a command is told before torch is imported.
"""
