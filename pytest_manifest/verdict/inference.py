"""Infer what became of a job that has no end: by the first milestone that decides (F).

What is inferred is of that milestone: it takes doubts, starts and deaths as of then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, TypeAlias

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
from pytest_manifest.verdict.belief import FieldValue, Finding, Traces
from pytest_manifest.verdict.case import (
    Case,
    Own,
    judge_ends,
    keeps_all_starts,
    restarted_too_often,
    too_deadly,
)
from pytest_manifest.verdict.evidence import is_revocation_notice

Milestone: TypeAlias = Recalled | Moved | Nowhere | TimeOver | RunOver

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
    kinds = Recalled, Moved, Nowhere, TimeOver
    own: list[Milestone] = [
        one for kind in kinds for one in case.facts.each(kind) if one.seq > case.base
    ]
    own += [one for one in case.run.overs if one.seq > case.base]
    yield from sorted(own, key=lambda one: one.seq)


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
        found = Finding("unknown", "unreadable", {"why": known.unreadable})
    if known.disbelieved is not None and found.status in SILENT:
        return Own(known.disbelieved, known, end=milestone.seq)
    if found.status == "revoked":  # as the store says: that is its end
        notices = [one for one in known.stored if is_revocation_notice(one.receipt)]
        end = replace(notices[0], seq=milestone.seq)
        return judge_ends(case, known, [end])
    expect = case.entry.expect
    if found.status == expect.state and expect.error is None and _is_seen(case, milestone, known):
        found = Finding("passed", "ended_as_expected", {**found.fields, "end": found.code})
    if found.status == "crashed" and not case.is_descendant:
        found = too_deadly(case, known, found, milestone.seq)
    return Own(found, known, end=milestone.seq)


def _found(case: Case, milestone: Milestone, known: Traces) -> Finding | None:
    if isinstance(milestone, Recalled):
        return _taken_back(milestone, known)
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


def _taken_back(recalled: Recalled, known: Traces) -> Finding | None:
    """Find a job that no worker will run, as every one has heard that it is recalled (F6)."""
    status = _RECALLED.get(recalled.why)
    if recalled.stage == "asked" or known.is_running or status is None:
        return None
    when = "unstarted" if not known.starts else "between"
    return Finding(status, "taken_back", {"why": recalled.why, "when": when})


_RECALLED: Final[Mapping[RecallReason, VerdictStatus]] = {
    "stop": "withdrawn",
    "max_failed": "withdrawn",
    "operator": "withdrawn",
    "time": "timed_out",
}


def _died(case: Case, known: Traces, seq: int) -> Finding:
    """Find a job whose process is gone, or that a dead worker had begun (F3)."""
    emptied = _emptied(case.run, seq)
    return emptied or Finding("crashed", "process_gone", _death(known))


def _death(known: Traces) -> dict[str, FieldValue]:
    last, death = known.last, known.death
    fields: dict[str, FieldValue] = {}
    if last is not None:
        fields = {"worker": last.worker or last.host, "pid": last.pid}
    if death is not None and death.exit_code is not None:
        fields["exit_code"] = death.exit_code
    return fields


def _emptied(run: RunFacts, seq: int) -> Finding | None:
    """Find that the store may have lost the end of any job of the run."""
    what = [one.what for one in run.store if one.seq <= seq and one.what in ("emptied", "older")]
    return Finding("unknown", f"store_{what[0]}") if what else None


def _missing(case: Case, nowhere: Nowhere, known: Traces) -> Finding | None:
    """Find what became of a job that is in no place (F4)."""
    seq, last, hearsay = nowhere.seq, known.last, known.hearsay
    if known.death is None and any(one.seq > nowhere.as_of for one in hearsay):
        return None  # an end that was reported since the search is searched for anew
    sent_at = case.sent_at
    segment = next((one for one in reversed(case.run.segments) if one.seq <= seq), None)
    age = 0.0 if sent_at is None else (nowhere.at - sent_at).total_seconds()
    if segment is not None and age > segment.lifetime:
        return Finding("unknown", "past_lifetime")
    emptied = _emptied(case.run, seq)
    if emptied is not None:
        return emptied
    is_dead = known.is_running and known.death is not None
    other = [one.url for one in case.run.places if one.what == "other_broker" and one.seq <= seq]
    if other and not is_dead:
        return Finding("unknown", "other_broker", {"broker": other[0]})
    if known.has_notice and not known.is_running:
        return Finding("revoked", "revoked")
    if last is None:
        return _missing_unstarted(case, nowhere)
    between = known.between
    if between is not None:
        return Finding("lost", "lost_between", {"how": between.how, "worker": last.worker})
    if not is_dead:
        return Finding("lost", "lost_in_flight", {"worker": last.worker})
    if all(one.receipt.state == "crashed" for one in hearsay):
        return Finding("crashed", "process_gone", _death(known))
    return Finding("unknown", "end_unconfirmed", _death(known))


def _missing_unstarted(case: Case, nowhere: Nowhere) -> Finding:
    brokers = [one.broker for one in case.facts.each(ChildElsewhere)]
    if brokers:
        return Finding("unknown", "elsewhere", {"broker": min(brokers)})
    if not keeps_all_starts(case.run, nowhere.seq):
        return Finding("unknown", "start_unreported")
    return Finding("lost", "never_begun")


def _overdue(case: Case, over: TimeOver, known: Traces) -> Finding | None:
    """Find a job whose own time is over (F5)."""
    seen = [one for one in case.facts.each(Seen) if one.seq < over.seq]
    if over.of == "deadline":
        if not case.was_sent:
            return Finding("timed_out", "never_taken", {"limit": over.limit})
        return Finding("timed_out", "deadline_over", {"limit": over.limit, **_holder(seen)})
    last = known.last
    if last is None or not known.is_running or over.execution not in (None, last.execution):
        return None
    if seen and seen[-1].seq > last.seq and seen[-1].place == "queue":
        return None  # it waits once more: its process had died, and the broker has it again
    if known.death is not None:
        return _died(case, known, over.seq)
    return Finding("timed_out", "timeout_over", {"limit": over.limit})


def _holder(seen: Sequence[Seen]) -> dict[str, FieldValue]:
    """Say who has its message and does not answer."""
    taken = seen[-1] if seen and seen[-1].place == "unacked" else None
    return {} if taken is None else {"holder": taken.holder or "a worker"}


def run_over(case: Case, over: RunOver, known: Traces) -> Finding | None:
    """Find what is said of a job as its run ends before it (B3, F6, F8)."""
    is_sent = case.was_sent
    if over.why == "ended":
        return _looked_at(case, over, is_sent=is_sent)
    status = _AT_THE_END[over.why]
    if status == "timed_out" and known.is_running and known.death and not known.unreadable:
        return _died(case, known, over.seq)  # of what is dead, that its time is over is no answer
    seen = [one for one in case.facts.each(Seen) if one.seq < over.seq]
    fields: dict[str, FieldValue] = {
        **over.fields,
        "sent": "yes" if is_sent else "",
        **_holder(seen),
    }
    if over.limit is not None:
        fields["limit"] = over.limit
    if over.error:
        fields["error"] = over.error
    return Finding(status, f"run_{over.why}", fields)


_AT_THE_END: Final[Mapping[RunOverReason, VerdictStatus]] = {
    "deadline": "timed_out",
    "nobody": "pending",
    "undecodable": "unknown",
    "gave_up": "unknown",
}


def _looked_at(case: Case, over: RunOver, *, is_sent: bool) -> Finding | None:
    """Say of an audited run's job why it has no end: its report may be past its lifetime (F8)."""
    if not is_sent:
        return Finding("unknown", "never_sent")
    seen = [one for one in case.facts.each(Seen) if one.seq > case.base]
    is_somewhere = bool(seen) and seen[-1].place != "unknown"
    age = (over.at - case.run.created_at).total_seconds()
    if age > case.run.stream_ttl and not is_somewhere:
        return Finding("unknown", "past_lifetime")
    return None
