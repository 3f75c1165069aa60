"""probe.py scales: is the embedding of a smaller model that of a larger one, turned and projected?"""

PARTS = ("fits", "pairs", "volumes", "digits")
