"""Compute the content of reports from a run's ledger, by pure functions."""

from typing import Final

ENOUGH: Final = 10
"""Entries below which no advice is given."""
