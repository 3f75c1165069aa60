"""The metrics as pure functions: pairs → counts → figures, the bootstrap over synsets, hypernym chains, categories."""
