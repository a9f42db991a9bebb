"""Whether a job may have run: by its traces and by who speaks, never by the name of its end."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from pytest_manifest.schema import Receipt, Source, State
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.verdict import may_have_run

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
    bare, stock = receipt(state), receipt(state, "backend")
    twice = receipt(state, redelivered=True)
    for witnessed in (False, True):
        assert not may_have_run(sent=True, begun=False, receipts=[bare], witnessed=witnessed)
        for one in (stock, twice):
            told = may_have_run(sent=True, begun=False, receipts=[one], witnessed=witnessed)
            assert told is not witnessed
        assert may_have_run(sent=True, begun=True, receipts=[bare], witnessed=witnessed)
        for trace in RAN:
            traced = receipt(state, **trace)
            assert may_have_run(
                sent=True, begun=False, receipts=[bare, traced], witnessed=witnessed
            )


@pytest.mark.parametrize("state", ["succeeded", "failed", "crashed", "timed_out", "ignored"])
def test_other_ends_are_of_jobs_that_ran(state: State) -> None:
    """Whoever says so."""
    for source in ("worker", "backend"):
        told = receipt(state, source)
        assert may_have_run(sent=True, begun=False, receipts=[told], witnessed=True)


@pytest.mark.parametrize("receipts", [[], [receipt("revoked", "backend")]], ids=["none", "notice"])
def test_without_a_word_it_is_whether_a_start_would_be_known(receipts: list[Receipt]) -> None:
    """What was never handed to the broker has not run in any case."""
    assert may_have_run(sent=True, begun=False, receipts=receipts, witnessed=False)
    assert not may_have_run(sent=True, begun=False, receipts=receipts, witnessed=True)
    assert not may_have_run(sent=False, begun=False, receipts=receipts, witnessed=False)


def test_a_notice_takes_nothing_from_what_a_worker_says() -> None:
    """One that was told of a revocation does not know what became of the message elsewhere."""
    notice, denial = receipt("revoked", "backend"), receipt("revoked")
    assert not may_have_run(sent=True, begun=False, receipts=[notice, denial], witnessed=False)
    stock = receipt("rejected", "backend")
    assert may_have_run(sent=True, begun=False, receipts=[stock, denial], witnessed=False)
