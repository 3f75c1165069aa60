"""What a run left in its folder, read back and shown: words, tables, figures, Markdown, HTML.

Everything here works from the dictionaries of report.json and the series of metrics.csv. Nothing is measured, no torch
is imported: the callbacks show a run that has just ended by it, the probes one that ended long ago.
"""
