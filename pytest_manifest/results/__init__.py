"""Receipts, read back: from the stream of a run, or from the plain Celery result backend."""
