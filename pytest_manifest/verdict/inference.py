"""Infer what became of a job that has no end: by the first milestone that decides (F).

What is inferred is of that milestone: it takes doubts, starts and deaths as of then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

from pytest_manifest.schema import VerdictStatus, facts
from pytest_manifest.schema.facts import Gone, Moved, Nowhere, Recalled, Seen, Started, TimeOver
from pytest_manifest.schema.run_facts import RunFacts, RunOver, RunOverReason
from pytest_manifest.schema.statuses import SILENT
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.belief import End, is_emptied
from pytest_manifest.verdict.case import (
    Case,
    Own,
    judge_ends,
    keeps_all_starts,
    may_be_unreported,
    problem_of,
    restarted_too_often,
    too_deadly,
)
from pytest_manifest.verdict.messages import EndedAsExpected
from pytest_manifest.verdict.reasons import Finding, Problem

Milestone: TypeAlias = Recalled | Moved | Nowhere | TimeOver | RunOver


@dataclass(frozen=True, slots=True)
class Found:
    """The meaning of a milestone, before anything else that is known of the job."""

    status: VerdictStatus
    reason: Problem


def infer(case: Case) -> Own | None:
    """Return what the first milestone that decides was taken for; where none does, what is said
    of a job that goes on."""
    goes_on: Own | None = None
    for milestone in _milestones(case):
        own = _as_of(case.until(milestone.seq), milestone)
        if own is None:
            continue
        if own.finding.status != "pending":
            return own
        goes_on = own
    return goes_on


def _milestones(case: Case) -> Iterator[Milestone]:
    job = case.facts
    own: list[Milestone] = [*job.each(Recalled), *job.each(Moved), *case.run.overs]
    own += [*job.each(Nowhere), *job.each(TimeOver)]
    yield from sorted(filter(case.is_current, own), key=lambda one: one.seq)


def _as_of(case: Case, milestone: Milestone) -> Own | None:
    """Return what a milestone shows of the job, by what was known then; None: it decides nothing.

    In this order: what kills its workers is quarantined whatever else is found (F2); what is
    stored and cannot be read here is an end, or a state, of its own (F1); an end that does not
    count makes every other word about it doubtful (C1); and what the entry expects, its job may
    have come to by itself (F7).
    """
    seq, known = milestone.seq, case.traces
    restarted = restarted_too_often(case)
    if restarted is not None:
        return Own(restarted, end=seq)
    found = _found(case, milestone)
    if found is None:
        return None
    if known.unreadable and case.was_sent:
        found = Found("unknown", problems.Unreadable(why=known.unreadable))
    if isinstance(found, End):
        return judge_ends(case, [found])
    if known.disbelieved is not None and found.status in SILENT:
        return Own(Finding("forged", known.disbelieved), end=seq)
    expect, whole = case.entry.expect, Finding(found.status, found.reason)
    if found.status == expect.state and expect.error is None and _is_seen(case, milestone):
        whole = Finding("passed", EndedAsExpected(ended=found.status, why=found.reason))
    if whole.status == "crashed" and not case.is_descendant:
        whole = too_deadly(case, whole, seq)
    return Own(whole, end=seq)


def _found(case: Case, milestone: Milestone) -> Found | End | None:
    if isinstance(milestone, Recalled):
        return _taken_back(case, milestone)
    if isinstance(milestone, Moved):  # F3
        last = case.traces.running
        return None if milestone.how == "put_back" or last is None else _died(case, last)
    if isinstance(milestone, Nowhere):
        return _missing(case, milestone)
    if isinstance(milestone, TimeOver):
        return _overdue(case, milestone)
    return run_over(case, milestone)


def _is_seen(case: Case, milestone: Milestone) -> bool:
    """Return whether the job itself is known to have come to what is found of it (F7).

    Where the run's time was over, only what had run longer than it may by then.
    """
    last = case.traces.running
    if last is None:
        return False
    if not isinstance(milestone, RunOver) or case.traces.death is not None:
        return True
    return last.at < milestone.at - timedelta(seconds=case.entry.timeout)


def _taken_back(case: Case, recalled: Recalled) -> Found | None:
    """Find a job that no worker will run, as every one has heard that it is recalled (F6)."""
    known, status = case.traces, _RECALLED.get(recalled.why)
    if recalled.stage == "asked" or known.running is not None or status is None:
        return None
    if recalled.why == "operator":
        code = problems.CancelledBetweenTries if known.starts else problems.CancelledBeforeStart
        return Found(status, code())
    if recalled.why != "time":
        if known.starts:
            return Found(status, problems.StoppedBetweenTries())
        is_unproven = recalled.stage != "withdrawn" and may_be_unreported(case)
        return Found(
            status, problems.StoppedUnproven() if is_unproven else problems.StoppedBeforeStart()
        )
    limit = case.run.deadline
    if known.starts:
        return Found(status, problems.RunDeadlineBetweenTries(limit=limit))
    return Found(status, problems.RunDeadlineBeforeStart(limit=limit))


_RECALLED: Final[Mapping[facts.RecallReason, VerdictStatus]] = {
    "stop": "withdrawn",
    "max_failed": "withdrawn",
    "operator": "cancelled",
    "time": "timed_out",
}


def _died(case: Case, last: Started) -> Found:
    """Find a job whose process is gone, or that a dead worker had begun (F3).

    An end of it that the store alone has may be of the job, whose report got lost, or be stored by
    a task in the middle of its work.
    """
    if emptied := _emptied(case.run):
        return emptied
    is_confirmed = all(one.receipt.state == "crashed" for one in case.traces.hearsay)
    reason = _death(last, case.traces.death, is_confirmed=is_confirmed)
    return Found("crashed" if is_confirmed else "unknown", reason)


def _death(last: Started, death: Gone | None, *, is_confirmed: bool) -> Problem:
    """Say how a job's process has ended; where not ``is_confirmed``, the store has an end of it."""
    if death is not None and death.exit_code is not None:
        ended = problems.ProcessEnded if is_confirmed else problems.ProcessEndedUnconfirmed
        return ended(worker=death.worker, exit_code=death.exit_code)
    gone = problems.ProcessGone if is_confirmed else problems.ProcessGoneUnconfirmed
    return gone(worker=last.worker or last.host, pid=last.pid)


def _emptied(run: RunFacts) -> Found | None:
    """Find that the store may have lost the end of any job of the run."""
    if all(one.what != "emptied" for one in run.store):
        return None
    is_now = is_emptied(run)
    return Found("unknown", problems.StoreEmptied() if is_now else problems.StoreEmptiedEarlier())


def _missing(case: Case, nowhere: Nowhere) -> Found | End | None:
    """Find what became of a job that is in no place (F4)."""
    known, sent_at = case.traces, case.sent_at
    last, death = known.last, known.death
    if death is None and any(one.seq > nowhere.as_of for one in known.hearsay):
        return None  # an end that was reported since the search is searched for anew
    age = None if sent_at is None else (nowhere.at - sent_at).total_seconds()
    if age is not None and any(age > one.lifetime for one in case.run.segments[-1:]):
        return Found("unknown", problems.PastLifetime())
    emptied = _emptied(case.run)
    if emptied is not None:
        return emptied
    is_dead = known.running is not None and death is not None
    other = [one.url for one in case.run.places if one.what == "other_broker"]
    if other and not is_dead:
        return Found("unknown", problems.OtherBroker(broker=other[0]))
    if known.notice is not None and known.running is None:
        return replace(known.notice, seq=nowhere.seq)  # that is its end then
    if last is None:
        return _missing_unstarted(case)
    between = known.between
    if between is not None:
        return Found("lost", problems.LostBetween(worker=last.worker, how=between.how))
    if death is None:
        return Found("lost", problems.LostInFlight(worker=last.worker))
    return _died(case, last)


def _missing_unstarted(case: Case) -> Found:
    brokers = [one.broker for one in case.facts.each(facts.ChildElsewhere)]
    if brokers:
        return Found("unknown", problems.Elsewhere(broker=min(brokers)))
    run, store, own = case.run, "", ""
    if not run.is_private and run.backend:
        store = run.backend
        own = next((one.url for one in run.places if one.what == "own_store"), "")
    if keeps_all_starts(run):
        if any(one.why == "operator" for one in case.facts.each(Recalled)):
            return Found("cancelled", problems.CancelledBeforeStart())
        return Found("lost", problems.NeverBegun(store=store, own=own))
    return Found("unknown", problems.StartUnreported(store=store, own=own))


def _overdue(case: Case, over: TimeOver) -> Found | None:
    """Find a job whose own time is over (F5)."""
    if over.of == "deadline":
        if not case.was_sent:
            return Found("timed_out", problems.NeverTaken(limit=over.limit))
        whose, holder = "the" if case.is_descendant else "its", _holder(case)
        reason = problems.DeadlineOver(limit=over.limit, whose=whose, holder=holder)
        return Found("timed_out", reason)
    last = case.traces.running
    if last is None or over.execution not in (None, last.execution):
        return None
    newest = max([last, *case.facts.each(Seen)], key=lambda one: one.seq)
    if isinstance(newest, Seen) and newest.place == "queue":
        return None  # it waits once more: its process had died, and the broker has it again
    if case.traces.death is not None:
        return _died(case, last)
    return Found("timed_out", problems.TimeoutOver(limit=over.limit))


def _holder(case: Case) -> str:
    """Return who has its message and does not answer; "" where nobody has."""
    seen = case.facts.each(Seen)
    taken = seen[-1] if seen and seen[-1].place == "unacked" else None
    return "" if taken is None else f"worker {taken.holder}" if taken.holder else "a worker"


def run_over(case: Case, over: RunOver) -> Found | None:
    """Find what is said of a job as its run ends before it (B3, F6, F8)."""
    if over.why == "ended":
        return _looked_at(case, over)
    status, code = AT_THE_END[over.why]
    known = case.traces
    last = known.running
    if status == "timed_out" and last is not None and known.death and not known.unreadable:
        return _died(case, last)  # of what is dead, that its time is over is no answer
    error = "error" if over.why == "gave_up" else "unread"
    fields: dict[str, object] = {error: over.error, "unsent": not case.was_sent}
    fields |= {"holder": _holder(case), **over.fields}
    if over.limit is not None:
        fields["limit"] = over.limit
    return Found(status, problem_of(code, fields))


AT_THE_END: Final[Mapping[RunOverReason, tuple[VerdictStatus, type[Problem]]]] = {
    "deadline": ("timed_out", problems.RunDeadline),
    "unanswered": ("pending", problems.RunDeadlineUnanswered),
    "unasked": ("pending", problems.RunDeadlineUnasked),
    "nobody": ("pending", problems.RunNobody),
    "undecodable": ("unknown", problems.RunUndecodable),
    "silent": ("unknown", problems.RunUnanswered),
    "gave_up": ("unknown", problems.RunGaveUp),
}


def _looked_at(case: Case, over: RunOver) -> Found | None:
    """Say of an audited run's job why it has no end: its report may be past its lifetime (F8)."""
    if not case.was_sent:
        return Found("unknown", problems.NeverSent())
    if case.place not in (None, "unknown"):
        return None
    if (over.at - case.run.created_at).total_seconds() > case.run.stream_ttl:
        return Found("unknown", problems.PastLifetime(where="the result store"))
    disbelieved = case.traces.disbelieved
    return None if disbelieved is None else Found("forged", disbelieved)
