"""Compute the content of reports from a run's ledger, by pure functions."""
