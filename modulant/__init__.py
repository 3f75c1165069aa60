"""The ground floors: what is measured and what it is measured on, below modulators, training and the command lines."""
