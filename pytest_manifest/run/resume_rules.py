"""Decide which entries of a resumed run are sent, waited for or left, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.broker.locating.base import Location
from pytest_manifest.ledger import AttemptRow, Ledger, utc_now
from pytest_manifest.ledger.attempts import PlanRow
from pytest_manifest.manifest import Manifest
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.statuses import KEPT

Action = Literal["keep", "send", "wait", "leave"]
"""keep: its verdict stands; send: now; wait: it is under way; leave: it might run twice."""

UNDER_WAY = frozenset({"queued", "unacked_by_dead", "with_worker", "unknown"})
NOT_SENT = frozenset({"planned", "withheld"})

DEADLY: Final = "it killed its worker too often"
"""Why nothing sends an entry again that is quarantined, unless somebody insists."""
PASSED: Final = "passed"
"""Why an entry is kept that has passed."""
SHOWN = 50
"""Decisions that are listed one by one; of more, each reason once, with some of the ids."""
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class EntryState:
    """Hold what is known of an entry when its run is resumed.

    ``status`` is its verdict; ``location`` is where its last attempt was found, None where it has a
    receipt or was never sent. ``tree_goes_on``: its job had ended, and so had the run's patience,
    but not all that the job started. ``turned_away``: a worker has turned that attempt away, so
    what was found is another message of it. ``is_cancelled``: an operator does not want it any
    more; ``is_requeued``: one wants it sent again.
    """

    last: AttemptRow | None
    status: VerdictStatus | None = None
    location: Location | None = None
    may_have_started: bool = False
    tree_goes_on: bool = False
    turned_away: bool = False
    is_cancelled: bool = False
    is_requeued: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """Hold what is done with an entry, and the reason: a phrase."""

    entry: str
    action: Action
    reason: str
    unsafe: bool = False
    """Whether it might run twice by that, or kill a worker again: --manifest-resume=unsafe sends
    it, or would."""
    sends_later: bool = False
    """Whether it is sent once what is waited for has ended, unless it has passed by then."""
    is_requeued: bool = False
    """Whether an operator wants it sent again."""
    after: tuple[str, ...] = ()
    """Of the entries that it waits for, those that had not passed."""


def decide(entry: Entry, state: EntryState, *, unsafe: bool) -> Decision:
    """Apply the rule of ``--manifest-resume`` to one entry.

    ``unsafe``: what is not idempotent and may have started is sent as well, and what has killed its
    worker too often.
    """
    if state.status == "passed":
        return Decision(entry.id, "keep", PASSED)
    is_under_way = state.location in UNDER_WAY and not state.turned_away
    is_cancelled = (state.status in KEPT or state.is_cancelled) and not state.is_requeued
    if is_cancelled and not is_under_way:
        action: Action = "keep" if state.status is not None else "leave"
        return Decision(entry.id, action, "an operator has cancelled it")
    if is_under_way and state.location is not None:
        if not state.tree_goes_on:
            return Decision(entry.id, "wait", _WHERE[state.location])
        later = decide(entry, replace(state, location=None), unsafe=unsafe)
        sends = later.action == "send"
        return Decision(entry.id, "wait", _TREE_GOES_ON, later.unsafe and sends, sends)
    reason, is_there = _why(state), state.location in UNDER_WAY
    if is_there and not unsafe:  # turned away, and there all the same
        return Decision(entry.id, "leave", f"{reason}, but its message is there twice", unsafe=True)
    risky = state.may_have_started and not entry.idempotent
    if risky and not unsafe:
        did = "has run" if state.status == "failed" else "may have run"
        reason = f"{reason}; it {did} and is not idempotent"
        return Decision(entry.id, "leave", reason, unsafe=True)
    is_deadly = state.status == "quarantined"
    if is_deadly and not unsafe:
        return Decision(entry.id, "leave", f"{reason}; {DEADLY}", unsafe=True)
    insists = risky or is_there or is_deadly
    return Decision(entry.id, "send", reason, insists, is_requeued=state.is_requeued)


_WHERE: Mapping[Location, str] = {
    "queued": "still queued",
    "unacked_by_dead": "held by a worker that is gone, until the broker's visibility timeout is "
    "over; --manifest-repair puts it back now",
    "with_worker": "held or run by a worker",
    "unknown": "it may still be queued or running",
}


_TREE_GOES_ON: Final = "its job has ended, and tasks that it started may still run"


def _why(state: EntryState) -> str:
    if state.last is None or (state.status is None and state.last.state in NOT_SENT):
        return "never sent"
    if state.last.state == "reused":
        return f"what was reused is {state.status or 'of no use'}"
    if state.status is not None:
        return state.status if state.last.state not in NOT_SENT else f"never sent ({state.status})"
    return "lost in flight" if state.may_have_started else "lost"


def plan_decisions(
    ledger: Ledger,
    manifest: Manifest,
    decisions: Sequence[Decision],
    run: str,
    last: Mapping[str, AttemptRow],
) -> list[Attempt]:
    """Record what is about to be sent, and take back the verdicts that it replaces; return it.

    A new attempt where the last was really sent. What was asked for and has certainly not run is
    still asked for.
    """
    order = {entry: place for place, entry in enumerate(manifest.ids)}
    asked_for = ledger.info.sent_on_request()
    attempts: list[Attempt] = []
    known, asked = list[str](), list[str]()
    fresh: dict[bool, list[PlanRow]] = {False: [], True: []}
    for decision in decisions:
        if decision.action != "send":
            continue
        entry, row = manifest[decision.entry], last.get(decision.entry)
        if row is not None and row.state in NOT_SENT:
            attempts.append(Attempt(run, entry, row.attempt, row.task_id))
            known.append(row.task_id)
            continue
        place = order[entry.id]
        one = attempt_of(run, entry, 1 if row is None else row.attempt + 1, place)
        attempts.append(one)
        row_of = (one.task_id, entry.id, one.number, place, decision.reason)
        fresh[decision.is_requeued].append(row_of)
        if decision.unsafe or (row is not None and row.task_id in asked_for):
            asked.append(one.task_id)
    entries = [one.entry.id for one in attempts]
    requeued = {one.entry for one in decisions if one.is_requeued}
    with ledger.transaction():
        ledger.attempts.plan(fresh[False], why="resume")
        ledger.attempts.plan(fresh[True], why="requeue")
        ledger.attempts.mark(known, "planned")
        ledger.info.add_sent_on_request(asked)
        ledger.verdicts.reopen([one for one in entries if one not in requeued])
        ledger.verdicts.reopen([one for one in entries if one in requeued], why="requeue")
        ledger.info.begin_segment(utc_now())
        ledger.info.set_status("running")
    return attempts


def describe_decisions(decided: Sequence[Decision], *, every: bool = False) -> list[str]:
    """Describe the decisions in lines for a person: many by reason, unless ``every`` one is
    wanted."""
    verbs = {"send": "sends", "wait": "waits for", "leave": "leaves"}
    every = every or sum(d.action in verbs for d in decided) <= SHOWN
    shown = [d for d in _with_held_back(decided, named=every) if d.action in verbs]
    hint = ["--manifest-resume=unsafe sends what is left as well"]
    hints = hint if any(d.action == "leave" and d.unsafe for d in shown) else []
    if every:
        return [f"{verbs[d.action]} {d.entry!r}: {_reason(d)}" for d in shown] + hints
    groups = Counter((d.action, _reason(d)) for d in shown)
    lines: list[str] = []
    for (action, reason), count in groups.most_common():
        ids = [d.entry for d in shown if (d.action, _reason(d)) == (action, reason)][:EXAMPLES]
        names = ", ".join(map(repr, ids))
        more = f" and {count - len(ids)} more" if count > len(ids) else ""
        lines.append(f"{verbs[action]} {names}{more}: {reason}")
    return lines + hints


def _with_held_back(decided: Sequence[Decision], *, named: bool) -> Sequence[Decision]:
    """Return the decisions as they turn out: what is to be sent, and waits for an entry that does
    not pass in this session, is left. ``named``: the reason names that entry.
    """
    waiting: dict[str, list[Decision]] = {}
    for one in decided:
        for name in one.after if one.action == "send" else ():
            waiting.setdefault(name, []).append(one)
    if not waiting:
        return decided
    coming = {one.entry for one in decided if one.action in ("send", "wait")}
    coming |= {one.entry for one in decided if one.action == "keep" and one.reason == PASSED}
    fallen = [name for name in waiting if name not in coming]
    held: dict[str, Decision] = {}
    for culprit in fallen:  # grows
        for one in waiting.get(culprit, ()):
            if one.entry not in held:
                what = f"it waits for {culprit!r}, which" if named else "what it waits for"
                reason = f"{what} has not passed"
                held[one.entry] = replace(one, action="leave", reason=reason, unsafe=False)
                fallen.append(one.entry)
    return [held.get(one.entry, one) for one in decided]


def _reason(decision: Decision) -> str:
    """Return why, and what follows."""
    return f"{decision.reason}{'; then it is sent again' if decision.sends_later else ''}"
