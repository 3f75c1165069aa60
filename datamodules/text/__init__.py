"""Any text as training data for a language model: documents, a tokenizer, memory-mapped tokens, windows over them."""
