"""Secrets that are planted in a session, and looked for in all that it leaves and prints."""
