"""What a run found, shown: words, tables, charts, and the Markdown and HTML pages made of them.

The input is the dictionary of report.json and the series of metrics.csv; nothing is measured, and no torch is imported.
The callbacks use it when a run ends, the probes at any later time: `run` is the page of a run, `drawing` the charts of
all pages.
"""
