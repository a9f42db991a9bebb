"""Judge one receipt, or the lack of one, without a run around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone

from pytest_manifest.ledger.facts import end_of
from pytest_manifest.schema import Entry, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import Job, Sending, Started
from pytest_manifest.schema.run_facts import JobFact, JobFacts, RunFacts, SetBack, TaskFact
from pytest_manifest.schema.statuses import FIXED
from pytest_manifest.verdict.belief import (
    Identity,
    Traces,
    contradiction,
    counted_ends,
    traces_of,
)
from pytest_manifest.verdict.case import complete_receipt
from pytest_manifest.verdict.expectations import held_against
from pytest_manifest.verdict.judge import Attempt, judge
from pytest_manifest.verdict.messages import EndedAsExpected
from pytest_manifest.verdict.reasons import (
    UNEXPLAINED,
    Problem,
    verdict_by,
    verdict_of,
    verdict_without_receipt,
)
from tests.reports import started

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


def evaluate(
    entry: Entry,
    receipt: Receipt | None,
    *,
    attempt: int | None,
    problem: VerdictStatus | None = None,
    why: Problem = UNEXPLAINED,
    code: str | None = None,
    seen: bool = False,
    missing: Sequence[str] = (),
) -> Verdict:
    """Return the verdict by a receipt, or for a problem; ``seen``: the job itself came to it."""
    status = problem or "unknown"
    if receipt is None or status in FIXED:
        if seen and status == entry.expect.state and entry.expect.error is None:
            reason = EndedAsExpected(ended=status, why=why.hidden(entry))
            return verdict_of(entry.id, attempt, "passed", reason)
        return verdict_without_receipt(entry, attempt, status, why)
    found = held_against(entry, receipt, code=code, missing=missing)
    number = receipt.attempt if attempt is None else attempt
    return verdict_by(entry.id, number, found)


def completed(receipt: Receipt, starts: Sequence[Started]) -> Receipt:
    """Return a receipt with what the starts know."""
    return complete_receipt(receipt, Traces(starts=tuple(starts)))


def judged(
    entry: Entry,
    reported: Sequence[tuple[str | None, Receipt]],
    starts: Sequence[Started],
    sent_at: datetime | None,
    *,
    run: str,
    task_id: str,
    code: str | None = None,
) -> tuple[Verdict, Receipt | None]:
    """Judge the first attempt of an entry by these ends and starts, and by the code that it had."""
    known = [TaskFact(seq=1, at=EPOCH, task=entry.task, code=code)] if code else []
    own = _job(entry.id, run, task_id, 1, reported, starts, sent_at)
    around = RunFacts(run=run, created_at=EPOCH, is_private=True, facts=tuple(known))
    found = judge(entry, [Attempt(own)], around)
    finding = found.finding
    verdict = verdict_by(entry.id, 1, finding)
    return verdict, found.receipt


def _job(
    entry: str,
    run: str,
    task_id: str,
    number: int,
    reported: Sequence[tuple[str | None, Receipt]],
    starts: Sequence[Started],
    sent_at: datetime | None,
) -> JobFacts:
    job = Job(task_id=task_id, entry=entry, number=number, run=run, seq=1, at=EPOCH)
    facts: list[JobFact] = [Sending(seq=2, at=EPOCH, job=task_id, number=1, sent_at=sent_at)]
    facts += [replace(one, seq=3) for one in starts]
    facts += [
        end_of(seq, EPOCH, task_id, receipt, execution)
        for seq, (execution, receipt) in enumerate(reported, 4)
    ]
    return JobFacts(job, tuple(facts))


def lie_of(
    entry: Entry,
    receipt: Receipt,
    *,
    run: str,
    task_id: str,
    attempt: int,
    sent_at: datetime | None,
    set_back: timedelta = timedelta(),
) -> Problem | None:
    """Return what contradicts a receipt that came for this sending; None where nothing does."""
    back = set_back.total_seconds()
    extra = (SetBack(seq=0, at=EPOCH, job=task_id, by=back, most=back),) if back else ()
    hop, turn = int(receipt.replaced), receipt.retries
    begun = started(task_id, "x", None, turn, None, None, None, redelivered=False, hop=hop)
    facts = _job(entry.id, run, task_id, attempt, [(None, receipt)], [begun], sent_at)
    facts = replace(facts, extra=extra)
    traces = traces_of(facts, Identity(run, entry.id, attempt, task_id))
    if traces.disbelieved is not None:
        return traces.disbelieved
    around = RunFacts(run=run, created_at=EPOCH, is_private=True)
    return contradiction(entry, facts, traces, counted_ends(facts, traces, 0), around)
