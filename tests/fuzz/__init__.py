"""Hostile bytes for everything that reads what others have written, and what must come of them."""
