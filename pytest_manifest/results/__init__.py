"""Read receipts back: from a run's stream, or from the Celery result backend."""
