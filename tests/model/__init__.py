"""The model of the promises, and what explores it."""
