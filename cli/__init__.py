"""The command line, in the order of its work: read it, help, find the run folder, check it key by key, build and run.

Everything here but `checks` and `run` is read in a blink: a misspelt file name is told before torch is imported.
"""
