"""The page of a run: its files read back, its verdict, tables, charts, and the controls beside it."""
