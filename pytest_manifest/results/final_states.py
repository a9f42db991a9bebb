"""Name the states in which a stored result is a job's end."""

from __future__ import annotations

from typing import Final

from celery import states

FINAL_STATES: Final = (*states.READY_STATES, states.IGNORED, states.REJECTED)
"""Celery itself stores nothing of what was ignored or rejected; our workers do."""
