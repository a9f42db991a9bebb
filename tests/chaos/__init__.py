"""Faults injected into real runs: every verdict must stay right, and reached in time."""
