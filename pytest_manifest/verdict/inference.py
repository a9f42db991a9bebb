"""Infer what became of a job that has no end: by the first milestone that decides (F).

What is inferred is of that milestone: it takes doubts, starts and deaths as of then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeAlias

from pydantic import JsonValue

from pytest_manifest.schema import VerdictStatus
from pytest_manifest.schema.facts import (
    ChildElsewhere,
    Moved,
    Nowhere,
    Recalled,
    RecallReason,
    Seen,
    TimeOver,
)
from pytest_manifest.schema.run_facts import RunFacts, RunOver, RunOverReason
from pytest_manifest.schema.statuses import INFERRED, OPEN, SILENT
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.belief import Traces, is_revocation_notice
from pytest_manifest.verdict.case import (
    Case,
    Own,
    judge_ends,
    keeps_all_starts,
    problem_of,
    restarted_too_often,
    segment_at,
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


_FOR_WANT: Final = INFERRED | OPEN


def infer(case: Case) -> Own | None:
    """Return what the first milestone that decides was taken for; where none does, what is said
    of a job that goes on."""
    goes_on: Own | None = None
    for milestone in _milestones(case):
        known = case.known(milestone.seq)
        own = _as_of(case, milestone, known)
        if own is None:
            continue
        if own.finding.status != "pending":
            return own
        goes_on = own
    return goes_on


def _milestones(case: Case) -> Iterator[Milestone]:
    facts = case.facts
    own: list[Milestone] = [*facts.each(Recalled), *facts.each(Moved), *case.run.overs]
    own += [*facts.each(Nowhere), *facts.each(TimeOver)]
    yield from sorted((one for one in own if one.seq > case.base), key=lambda one: one.seq)


def _as_of(case: Case, milestone: Milestone, known: Traces) -> Own | None:
    """Return what a milestone shows of the job, by what was known then; None: it decides nothing.

    In this order: what kills its workers is quarantined whatever else is found (F2); what is
    stored and cannot be read here is an end, or a state, of its own (F1); an end that does not
    count makes every other word about it doubtful (C1); and what the entry expects, its job may
    have come to by itself (F7).
    """
    restarted = restarted_too_often(case, known)
    if restarted is not None:
        return Own(restarted, known, end=milestone.seq)
    found = _found(case, milestone, known)
    if found is None:
        return None
    if known.unreadable and found.status in _FOR_WANT and case.was_sent:
        found = Found("unknown", problems.Unreadable(why=known.unreadable))
    if known.disbelieved is not None and found.status in SILENT:
        return Own(Finding("forged", known.disbelieved), known, end=milestone.seq)
    if found.status == "revoked":  # as the store says: that is its end
        notices = [one for one in known.stored if is_revocation_notice(one.receipt)]
        end = replace(notices[0], seq=milestone.seq)
        return judge_ends(case, known, [end])
    expect, whole = case.entry.expect, Finding(found.status, found.reason)
    if found.status == expect.state and expect.error is None and _is_seen(case, milestone, known):
        whole = Finding("passed", EndedAsExpected(ended=found.status, why=found.reason))
    if whole.status == "crashed" and not case.is_descendant:
        whole = too_deadly(case, known, whole, milestone.seq)
    return Own(whole, known, end=milestone.seq)


def _found(case: Case, milestone: Milestone, known: Traces) -> Found | None:
    if isinstance(milestone, Recalled):
        return _taken_back(case, milestone, known)
    if isinstance(milestone, Moved):  # F3
        is_out = milestone.how != "put_back" and known.is_running
        return _died(case, known, milestone.seq) if is_out else None
    if isinstance(milestone, Nowhere):
        return _missing(case, milestone, known)
    if isinstance(milestone, TimeOver):
        return _overdue(case, milestone, known)
    return run_over(case, milestone, known)


def _is_seen(case: Case, milestone: Milestone, known: Traces) -> bool:
    """Return whether the job itself is known to have come to what is found of it (F7).

    Where the run's time was over, only what had run longer than it may by then.
    """
    last = known.last
    if last is None or not known.is_running:
        return False
    if not isinstance(milestone, RunOver) or known.death is not None:
        return True
    return last.at < milestone.at - timedelta(seconds=case.entry.timeout)


def _taken_back(case: Case, recalled: Recalled, known: Traces) -> Found | None:
    """Find a job that no worker will run, as every one has heard that it is recalled (F6)."""
    status = _RECALLED.get(recalled.why)
    if recalled.stage == "asked" or known.is_running or status is None:
        return None
    if recalled.why != "time":
        is_first = not known.starts
        reason = problems.StoppedBeforeStart() if is_first else problems.StoppedBetweenTries()
        return Found(status, reason)
    segment = segment_at(case.run, recalled.seq)
    limit = 0.0 if segment is None or segment.deadline is None else segment.deadline
    if known.starts:
        return Found(status, problems.RunDeadlineBetweenTries(limit=limit))
    return Found(status, problems.RunDeadlineBeforeStart(limit=limit))


_RECALLED: Final[Mapping[RecallReason, VerdictStatus]] = {
    "stop": "withdrawn",
    "max_failed": "withdrawn",
    "operator": "withdrawn",
    "time": "timed_out",
}


def _died(case: Case, known: Traces, seq: int) -> Found:
    """Find a job whose process is gone, or that a dead worker had begun (F3)."""
    emptied = _emptied(case.run, seq)
    return emptied or Found("crashed", _death(known))


def _death(known: Traces, *, is_confirmed: bool = True) -> Problem:
    """Say how a job's process has ended; where not ``is_confirmed``, the store has an end of it."""
    last, death = known.last, known.death
    if death is not None and death.exit_code is not None:
        ended = problems.ProcessEnded if is_confirmed else problems.ProcessEndedUnconfirmed
        return ended(worker=death.worker, exit_code=death.exit_code)
    worker = None if last is None else last.worker or last.host
    gone = problems.ProcessGone if is_confirmed else problems.ProcessGoneUnconfirmed
    return gone(worker=worker, pid=None if last is None else last.pid)


def _emptied(run: RunFacts, seq: int) -> Found | None:
    """Find that the store may have lost the end of any job of the run."""
    looks = [one.what for one in run.store if one.seq <= seq]
    if "emptied" not in looks:
        return None
    now = [what for what in looks if what in ("marked", "intact", "emptied")][-1]
    is_now = now == "emptied"
    return Found("unknown", problems.StoreEmptied() if is_now else problems.StoreEmptiedEarlier())


def _missing(case: Case, nowhere: Nowhere, known: Traces) -> Found | None:
    """Find what became of a job that is in no place (F4)."""
    seq, last, hearsay = nowhere.seq, known.last, known.hearsay
    if known.death is None and any(one.seq > nowhere.as_of for one in hearsay):
        return None  # an end that was reported since the search is searched for anew
    sent_at = case.sent_at
    segment = segment_at(case.run, seq)
    age = 0.0 if sent_at is None else (nowhere.at - sent_at).total_seconds()
    if segment is not None and age > segment.lifetime:
        return Found("unknown", problems.PastLifetime())
    emptied = _emptied(case.run, seq)
    if emptied is not None:
        return emptied
    is_dead = known.is_running and known.death is not None
    other = [one.url for one in case.run.places if one.what == "other_broker" and one.seq <= seq]
    if other and not is_dead:
        return Found("unknown", problems.OtherBroker(broker=other[0]))
    if known.has_notice and not known.is_running:
        return Found("revoked", problems.RevokedAndGone())
    if last is None:
        return _missing_unstarted(case, nowhere)
    between = known.between
    if between is not None:
        return Found("lost", problems.LostBetween(worker=last.worker, how=between.how))
    if not is_dead:
        return Found("lost", problems.LostInFlight(worker=last.worker))
    if all(one.receipt.state == "crashed" for one in hearsay):
        return Found("crashed", _death(known))
    return Found("unknown", _death(known, is_confirmed=False))


def _missing_unstarted(case: Case, nowhere: Nowhere) -> Found:
    brokers = [one.broker for one in case.facts.each(ChildElsewhere)]
    if brokers:
        return Found("unknown", problems.Elsewhere(broker=min(brokers)))
    run, store, own = case.run, "", ""
    if not run.is_private and run.backend:
        store = run.backend
        own = next((one.url for one in run.places if one.what == "own_store"), "")
    if keeps_all_starts(run, nowhere.seq):
        return Found("lost", problems.NeverBegun(store=store, own=own))
    return Found("unknown", problems.StartUnreported(store=store, own=own))


def _overdue(case: Case, over: TimeOver, known: Traces) -> Found | None:
    """Find a job whose own time is over (F5)."""
    seen = [one for one in case.facts.each(Seen) if one.seq < over.seq]
    if over.of == "deadline":
        if not case.was_sent:
            return Found("timed_out", problems.NeverTaken(limit=over.limit))
        whose, holder = "the" if case.is_descendant else "its", _holder(seen)
        reason = problems.DeadlineOver(limit=over.limit, whose=whose, holder=holder)
        return Found("timed_out", reason)
    last = known.last
    if last is None or not known.is_running or over.execution not in (None, last.execution):
        return None
    if seen and seen[-1].seq > last.seq and seen[-1].place == "queue":
        return None  # it waits once more: its process had died, and the broker has it again
    if known.death is not None:
        return _died(case, known, over.seq)
    return Found("timed_out", problems.TimeoutOver(limit=over.limit))


def _holder(seen: Sequence[Seen]) -> str:
    """Return who has its message and does not answer; "" where nobody has."""
    taken = seen[-1] if seen and seen[-1].place == "unacked" else None
    return "" if taken is None else f"worker {taken.holder}" if taken.holder else "a worker"


def run_over(case: Case, over: RunOver, known: Traces) -> Found | None:
    """Find what is said of a job as its run ends before it (B3, F6, F8)."""
    if over.why == "ended":
        return _looked_at(case, over, known)
    status, code = AT_THE_END[over.why]
    if status == "timed_out" and known.is_running and known.death and not known.unreadable:
        return _died(case, known, over.seq)  # of what is dead, that its time is over is no answer
    seen = [one for one in case.facts.each(Seen) if one.seq < over.seq]
    error = "error" if over.why == "gave_up" else "unread"
    fields: dict[str, JsonValue] = {error: over.error, "unsent": not case.was_sent}
    fields |= {"holder": _holder(seen), **over.fields}
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


def _looked_at(case: Case, over: RunOver, known: Traces) -> Found | None:
    """Say of an audited run's job why it has no end: its report may be past its lifetime (F8)."""
    if not case.was_sent:
        return Found("unknown", problems.NeverSent())
    seen = [one for one in case.facts.each(Seen) if one.seq > case.base]
    is_somewhere = bool(seen) and seen[-1].place != "unknown"
    age = (over.at - case.run.created_at).total_seconds()
    if age > case.run.stream_ttl and not is_somewhere:
        return Found("unknown", problems.PastLifetime(where="the result store"))
    if known.disbelieved is not None and not is_somewhere:
        return Found("unknown", known.disbelieved)
    return None
