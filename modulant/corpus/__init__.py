"""WordNet as one tokenizer sees it: tokenised entries, the population of synsets, batches. No Lightning."""
