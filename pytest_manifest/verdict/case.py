"""Hold a job to be judged, with what held when it was sent; hold its ends against expectations (E).

And count the deaths of processes that it has caused (F2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from pydantic import JsonValue

from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.facts import Job, Recalled, Sending, SendResult, TakenUp
from pytest_manifest.schema.run_facts import JobFacts, RunFacts, Segment
from pytest_manifest.schema.statuses import NEVER_STARTED_STATES
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH
from pytest_manifest.schema.values import value
from pytest_manifest.verdict import messages, problems
from pytest_manifest.verdict.belief import (
    End,
    Identity,
    Traces,
    complete_receipt,
    contradiction,
    traces_of,
    turns,
    without_unproven_claims,
)
from pytest_manifest.verdict.expectations import held_against, missing_fields
from pytest_manifest.verdict.reasons import UNEXPLAINED, Finding, Problem, read_reason


@value
class Case:
    """A job to judge: an attempt, or a descendant of one.

    ``entry`` has the id and the limit that held; ``deaths`` are those in earlier attempts; ``base``
    is when it was sent, or taken up again, last: what was inferred before is void.
    """

    entry: Entry
    facts: JobFacts
    run: RunFacts
    identity: Identity
    code: str | None
    base: int
    deaths: int = 0

    @property
    def is_descendant(self) -> bool:
        return self.facts.job.spawn is not None

    @property
    def was_sent(self) -> bool:
        """Return whether the broker may have had its message, or an earlier run has sent it."""
        if self.is_descendant or self.facts.job.reused is not None:
            return True
        outcomes = {one.number: "published" for one in self.facts.each(Sending)}
        outcomes |= {one.number: one.outcome for one in self.facts.each(SendResult)}
        return any(one in ("published", "uncertain") for one in outcomes.values())

    @property
    def sent_at(self) -> datetime | None:
        spawn = self.facts.job.spawn
        if spawn is not None:
            return spawn.spawned_at
        sent = self.facts.each(Sending)
        return sent[-1].sent_at if sent else None

    def known(self, seq: int) -> Traces:
        """Return what was reported by then."""
        return traces_of(self.facts.until(seq), self.identity)


@value
class Own:
    """The finding on a job itself, and what it goes by."""

    finding: Finding
    traces: Traces
    receipt: Receipt | None = None
    end: int | None = None


def case_of(
    entry: Entry, facts: JobFacts, run: RunFacts, *, deaths: int = 0, root: Job | None = None
) -> Case:
    job = facts.job
    sendings = facts.each(Sending)
    since = sendings[-1].seq if sendings else job.seq
    if job.spawn is not None and facts.facts:  # what is reported of it may come before its record
        since = min(since, facts.facts[0].seq - 1)
    base = since
    if taken_up := facts.each(TakenUp):
        base = max([since, *(one.seq for one in taken_up if one.why == "resume")])
    of = job if root is None else root
    origin = of.reused  # K: identity and doubts of the run that sent it; code and rules of this one
    if origin is not None:
        since, run = of.seq, run.of_reused
        identity = Identity(origin.run, origin.entry, origin.attempt, job.task_id)
        entry = entry.model_copy(update={"id": origin.entry})
    else:
        identity = Identity(run.run, of.entry, of.number, job.task_id)
    if job.spawn is not None:
        # The timeout is as by default: a limit of the task's own comes before it.
        own, task, timeout = {"id", "task", "deadline"}, job.spawn.task, entry.timeout
        entry = Entry.model_construct(
            own, id=entry.id, task=task, timeout=timeout, deadline=entry.deadline
        )
    code: str | None = None
    limit: float | None = None
    for known in run.tasks:
        if known.task == entry.task and known.seq <= since:
            code, limit = known.code or code, known.limit or limit
    code = code if job.spawn is None else None
    return Case(_limited(entry, limit), facts, run, identity, code, base, deaths)


def _limited(entry: Entry, limit: float | None) -> Entry:
    """Return the entry with the time that its job may take; a task's limit is not the entry's."""
    if limit is None or ("timeout" in entry.model_fields_set and entry.timeout <= limit):
        return entry
    if limit == entry.timeout:
        return entry
    held = entry.model_copy(update={"timeout": limit})
    held.model_fields_set.discard("timeout")
    return held


def keeps_all_starts(run: RunFacts, seq: int) -> bool:
    """Return whether by then every worker reports starts and every report was kept.

    A job without a start has never begun then.
    """
    some_start = run.first_start is not None and run.first_start <= seq
    return (run.is_private or some_start) and reports_starts(run, seq)


def reports_starts(run: RunFacts, seq: int) -> bool:
    """Return whether by then no start of the run can have been unreported, or lost."""
    doubts = (
        *(one for one in run.store if one.what == "emptied"),
        *(one for one in run.overs if one.why == "gave_up"),
        *(one for one in run.nodes if one.what in ("stock", "unserved", "nobody")),
        *(one for one in run.places if one.what == "other_broker"),
    )
    if any(one.seq <= seq for one in doubts):
        return False
    nodes = [one for one in run.nodes if one.seq <= seq]
    reporting = {one.name for one in nodes if one.what == "reports"}
    return not any(one.what == "silent" and one.name not in reporting for one in nodes)


def denies(receipt: Receipt, *, witnessed: bool) -> bool:
    """Return whether a receipt shows that its job ended before its task's code was entered.

    ``witnessed``: every worker that may have had the job reports starts, and all reports were kept,
    so that a job without a known start never started.
    """
    if receipt.state not in NEVER_STARTED_STATES or receipt.has_trace:
        return False
    # A stock worker does not report what it, or one before it, did before the end.
    return witnessed or (receipt.source == "worker" and not receipt.redelivered)


def problem_of(code: type[Problem], fields: Mapping[str, JsonValue]) -> Problem:
    """Return a reason with the figures that a fact has; of another version it has no reason."""
    try:
        found = read_reason({"code": code.code, **fields})
    except ValueError:
        return UNEXPLAINED
    return found if isinstance(found, Problem) else UNEXPLAINED


# E: what its end is held against


def judge_ends(case: Case, traces: Traces, ends: Sequence[End]) -> Own:
    """Judge by the ends that count, of which the last one decides."""
    end = ends[-1]
    lie = contradiction(case.entry, case.facts, traces, ends, case.run)  # C
    if lie is not None:
        return Own(Finding("forged", lie), traces, end.receipt, end.seq)
    said = without_unproven_claims(end, traces.starts)
    if said.reused is not None or said.judged is not None:  # which no worker says
        said = said.model_copy(update={"reused": None, "judged": None})
    whole = complete_receipt(said, traces.starts)
    found = _held_against(case, said, whole, end.seq)
    if found.status == "crashed" and not case.is_descendant:
        found = too_deadly(case, traces, found, end.seq)
    return Own(found, traces, whole, end.seq)


def _held_against(case: Case, said: Receipt, whole: Receipt, seq: int) -> Finding:
    entry = case.entry
    if whole.state == entry.expect.state == "revoked" and any(
        one.seq < seq for one in case.facts.each(Recalled)
    ):
        return Finding("revoked", problems.RecalledByRun())  # E1
    missing: Sequence[str] = ()
    if case.is_descendant:
        if whole.runtime is not None and whole.runtime > entry.timeout:
            entry = entry.model_copy(update={"timeout": whole.runtime})
    else:
        missing = missing_fields(entry, said, sent=case.sent_at is not None, code=case.code)
    found = held_against(entry, whole, code=case.code, missing=missing)
    reused = case.facts.job.reused
    if reused is not None:
        other = reused.entry if reused.entry != case.facts.job.entry else ""
        reason = messages.Reused(run=reused.run, entry=other, why=found.reason)
        return replace(found, reason=reason)
    return found


# F2: what kills its workers


def segment_at(run: RunFacts, seq: int) -> Segment | None:
    """Return the stretch of the run that had begun last by then."""
    return next((one for one in reversed(run.segments) if one.seq <= seq), None)


def _kills(run: RunFacts, seq: int) -> int:
    """Return after how many deaths an entry was quarantined then."""
    segment = segment_at(run, seq)
    return 1 if segment is None else segment.kills


def restarted_too_often(case: Case, traces: Traces) -> Finding | None:
    """Find a job that starts again and again, as its processes die of it."""
    again = max(turns(traces.starts) - 1, 0) + deaths_survived(traces)
    if not again:
        return None
    last = max(one.seq for one in (*traces.starts, *traces.handed_on.values()))
    is_deadly = case.deaths + again >= _kills(case.run, last)
    pids = tuple(one.pid for one in traces.starts if one.pid is not None)
    return _quarantined(case.deaths + again, pids) if is_deadly else None


def too_deadly(case: Case, traces: Traces, crashed: Finding, seq: int) -> Finding:
    """Return the finding on a job that has crashed: it is quarantined where that was too often."""
    deaths = case.deaths + deaths_survived(traces) + 1
    return crashed if deaths < _kills(case.run, seq) else _quarantined(deaths)


def deaths_survived(traces: Traces) -> int:
    return sum(one.how == HANDED_ON_AFTER_DEATH for one in traces.handed_on.values())


def _quarantined(deaths: int, pids: Sequence[int] = ()) -> Finding:
    return Finding("quarantined", problems.KillsWorkers(deaths=deaths, pids=tuple(pids[:deaths])))
