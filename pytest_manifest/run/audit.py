"""Looking at an earlier run again: what to wait for, and what to say of what has not come."""

from __future__ import annotations

import time
from datetime import datetime

from pytest_manifest.dispatch.attempt import Attempt
from pytest_manifest.ledger import Ledger, RunInfo, utc_now
from pytest_manifest.manifest import Manifest
from pytest_manifest.run.engine import Engine, Judged
from pytest_manifest.schema import VerdictKind
from pytest_manifest.verdict import judge


def follow_unsettled(engine: Engine, ledger: Ledger, manifest: Manifest, info: RunInfo) -> None:
    """Put in flight what was sent and has no final verdict, as old as it is."""
    for row in ledger.attempts(unsettled=True):
        if row.state in ("planned", "withheld") or row.entry not in manifest.ids:
            continue
        attempt = Attempt(info.run, manifest[row.entry], row.attempt, row.task_id)
        engine.flights.follow(attempt, _monotonic(row.sent_at))
        for start in ledger.starts(row.task_id):
            engine.flights.started(row.task_id, start.worker, _monotonic(start.started_at))


def close_audit(engine: Engine, ledger: Ledger, manifest: Manifest, info: RunInfo) -> None:
    """What an audit finds unfinished is pending, expired or never sent: nothing final."""
    age = (utc_now() - info.created_at).total_seconds()
    judged: list[Judged] = []
    for row in ledger.attempts(unsettled=True):
        kind, note = _unfinished(row.state, expired=age > info.stream_ttl)
        verdict = judge(manifest[row.entry], None, attempt=row.attempt, problem=kind, note=note)
        judged.append((verdict, None))
    engine.commit(judged)
    if not judged and ledger.status != "stopped":
        ledger.set_status("finished")


def _unfinished(state: str, *, expired: bool) -> tuple[VerdictKind, str]:
    if state == "planned":
        return "unknown", "it was never sent: the run ended before its turn came"
    if expired:
        return "unknown", "a receipt may have been, and be past its lifetime in the result store"
    return "pending", ""


def _monotonic(moment: datetime | None) -> float:
    """A moment of the past on this process's monotonic clock."""
    now = time.monotonic()
    return now if moment is None else now - max((utc_now() - moment).total_seconds(), 0.0)
