"""Finds the gaps of a corpus, has a language model fill them, and proves it by row counts."""
