"""Compute what reports show of a run, from its ledger, by pure functions."""
