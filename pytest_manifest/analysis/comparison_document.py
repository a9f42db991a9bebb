"""A comparison as plain JSON: for ``summary.json`` and the run page."""

from __future__ import annotations

from dataclasses import asdict

from pydantic import JsonValue

from pytest_manifest.analysis.comparison import Change, Comparison, ResultChange, TimeChange


def comparison_document(comparison: Comparison) -> dict[str, JsonValue]:
    """The comparison as JSON values; lists that are long are whole."""
    return {
        "before": _side(
            comparison.before_run,
            comparison.entries_before,
            comparison.passed_before,
            comparison.cost_before,
        ),
        "after": _side(
            comparison.after_run,
            comparison.entries_after,
            comparison.passed_after,
            comparison.cost_after,
        ),
        "newly_failing": _rows(comparison.newly_failing),
        "fixed": _rows(comparison.fixed),
        "still_failing": _rows(comparison.still_failing),
        "added": list(comparison.added),
        "removed": list(comparison.removed),
        "slower": _rows(comparison.slower),
        "faster": _rows(comparison.faster),
        "changed_results": _rows(comparison.changed_results),
        "threshold": comparison.threshold,
        "samples": comparison.samples,
    }


def _side(run: str, entries: int, passed: int, cost: float | None) -> dict[str, JsonValue]:
    return {"run": run, "entries": entries, "passed": passed, "cost": cost}


def _rows(rows: tuple[Change | TimeChange | ResultChange, ...]) -> list[JsonValue]:
    return [asdict(row) for row in rows]
