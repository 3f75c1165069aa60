"""Charts: what they show, drawn by matplotlib as figures and by plotly in pages."""
