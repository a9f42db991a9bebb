"""Whether a job may have run: by its traces and by who speaks, never by the name of its end."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from pytest_manifest.schema import Receipt, State
from pytest_manifest.schema.fields import Source
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.verdict.case import denies

RAN: tuple[dict[str, Any], ...] = (
    {"started_at": datetime(2026, 11, 24, 15, tzinfo=timezone.utc)},
    {"runtime": 0.1},
    {"pid": 7},
    {"cpu": 0.1},
    {"retries": 1},
    {"replaced": True},
)


def receipt(state: State, source: Source = "worker", **more: Any) -> Receipt:
    facts = {"run": "r", "entry": "a", "attempt": 1, "task_id": "t-a", "task": "t"}
    return Receipt.model_validate({**facts, "state": state, "source": source, **more})


@pytest.mark.parametrize("state", sorted(NEVER_STARTED_STATES))
def test_a_denial_counts_where_a_worker_of_ours_left_no_trace(state: State) -> None:
    """Any trace says more than the end's name; where no start goes unheard, its lack says all."""
    for witnessed in (False, True):
        assert denies(receipt(state), witnessed=witnessed)
        for one in (receipt(state, "backend"), receipt(state, redelivered=True)):
            assert denies(one, witnessed=witnessed) is witnessed
        for trace in RAN:
            assert not denies(receipt(state, **trace), witnessed=witnessed)


@pytest.mark.parametrize("state", ["succeeded", "failed", "crashed", "timed_out", "ignored"])
@pytest.mark.parametrize("source", ["worker", "backend"])
def test_other_ends_are_of_jobs_that_ran(state: State, source: Source) -> None:
    """Whoever says so."""
    assert not denies(receipt(state, source), witnessed=True)
