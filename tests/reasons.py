"""Give a verdict a reason in a test's own words."""

from __future__ import annotations

from pytest_manifest.verdict.reasons import Problem


class Noted(Problem):
    note: str = ""
    says = "{note}"


def noted(note: str) -> Noted:
    return Noted(note=note)


def phrase(why: Problem | None) -> str:
    """Return what a reason says, "" for none."""
    return "" if why is None else why.phrase()
