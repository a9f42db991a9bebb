"""Find the gaps of a corpus, have a language model fill them, and prove it by row counts."""
