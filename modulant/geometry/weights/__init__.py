"""Weight matrices: ranks, entries, forms of heads, biases by position; beside Gaussian ones."""
