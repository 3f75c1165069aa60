"""What measurements cost: WordNet relations, relational alignment, pentachora, terrain and topology."""
