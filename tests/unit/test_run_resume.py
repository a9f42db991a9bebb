"""The rule of --manifest-resume: what is sent, waited for, left, and why."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import Attempt, attempt_of
from pytest_manifest.broker.locating.base import Location
from pytest_manifest.ledger import AttemptRow, EntryVerdict, Ledger
from pytest_manifest.ledger.rows import SendState
from pytest_manifest.manifest import read_manifest, write_manifest
from pytest_manifest.run.changes import Change, change_of
from pytest_manifest.run.resume_rules import (
    EXAMPLES,
    SHOWN,
    Decision,
    EntryState,
    decide,
    describe_decisions,
    plan_decisions,
)
from pytest_manifest.schema import Entry, Header, Receipt, Verdict, VerdictStatus
from pytest_manifest.schema.facts import TakenUp
from tests.unit.ledger_support import INFO, MOMENT, verdict

RUN = "20261124T150000-0123abcd"
ONCE = Entry(id="a", task="t")
IDEMPOTENT = Entry(id="a", task="t", idempotent=True)


def row(state: SendState = "sent", number: int = 1) -> AttemptRow:
    return AttemptRow(f"t-{number}", "a", number, 0, state, None, None)


def by_sql(path: Path, query: str) -> list[tuple[object, ...]]:
    """What somebody else's query reads in a ledger."""
    with closing(sqlite3.connect(path)) as db:
        return db.execute(query).fetchall()


def settled(status: VerdictStatus, receipt: Receipt | None = None) -> EntryVerdict:
    return EntryVerdict(1, Verdict(verdict=status, entry="a", attempt=1, sentence="."), receipt)


def receipt(state: str) -> Receipt:
    return Receipt.model_validate(
        {"run": RUN, "entry": "a", "attempt": 1, "task_id": "t-1", "task": "t", "state": state}
    )


@pytest.mark.parametrize(
    ("state", "action", "reason"),
    [
        (EntryState(None), "send", "never sent"),
        (EntryState(row("planned")), "send", "never sent"),
        (EntryState(row("withheld"), status="skipped"), "send", "never sent (skipped)"),
        (EntryState(row(), status="passed"), "keep", "passed"),
        (EntryState(row(), status="lost"), "send", "lost"),
        (EntryState(row(), location="missing"), "send", "lost"),
        (EntryState(row("reused", 0)), "send", "what was reused is of no use"),
        (EntryState(row("reused", 0), status="failed"), "send", "what was reused is failed"),
        (
            EntryState(row(), location="missing", may_have_started=True),
            "leave",
            "lost in flight; it may have run and is not idempotent",
        ),
        (
            EntryState(row(), status="rejected", location="queued", turned_away=True),
            "leave",
            "rejected, but its message is there twice",
        ),
        (EntryState(row(), location="queued"), "wait", "still queued"),
        (EntryState(row(), status="timed_out", location="queued"), "wait", "still queued"),
        (
            EntryState(row(), location="unacked_by_dead"),
            "wait",
            (
                "held by a worker that is gone, until the broker's visibility timeout is over; "
                "--manifest-repair puts it back now"
            ),
        ),
        (EntryState(row(), location="with_worker"), "wait", "held or run by a worker"),
        (EntryState(row(), location="unknown"), "wait", "it may still be queued or running"),
        (
            EntryState(row(), status="failed", may_have_started=True),
            "leave",
            "failed; it has run and is not idempotent",
        ),
    ],
)
def test_an_entry_is_decided_by_what_is_known_of_it(
    state: EntryState, action: str, reason: str
) -> None:
    """What passed stays, what is under way is waited for, the rest is sent with its reason."""
    decision = decide(ONCE, state, unsafe=False)
    assert decision == Decision("a", action, reason, unsafe=action == "leave")  # type: ignore[arg-type]  # a literal of the table


CANCELLED = "an operator has cancelled it"


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        (EntryState(row("planned"), is_cancelled=True), Decision("a", "leave", CANCELLED)),
        (EntryState(row("planned"), status="cancelled"), Decision("a", "keep", CANCELLED)),
        (
            EntryState(row("planned"), status="cancelled", is_requeued=True),
            Decision("a", "send", "never sent (cancelled)", is_requeued=True),
        ),
        (
            EntryState(row(), location="queued", is_cancelled=True),
            Decision("a", "wait", "still queued"),
        ),
    ],
)
def test_what_an_operator_has_cancelled_is_sent_only_on_request(
    state: EntryState, decision: Decision
) -> None:
    """What is under way is waited for all the same."""
    assert decide(ONCE, state, unsafe=True) == decision


def test_what_may_have_run_is_sent_where_that_is_declared_or_demanded() -> None:
    """An idempotent entry is, and any other with --manifest-resume=unsafe."""
    state = EntryState(row(), status="crashed", may_have_started=True)
    assert decide(IDEMPOTENT, state, unsafe=False).action == "send"
    assert decide(ONCE, state, unsafe=True).action == "send"
    assert decide(ONCE, state, unsafe=False).action == "leave"
    twice = EntryState(row(), status="rejected", location="queued", turned_away=True)
    insisted = decide(ONCE, twice, unsafe=True)
    assert insisted == Decision("a", "send", "rejected", unsafe=True)


def test_what_killed_its_worker_too_often_is_sent_only_on_demand() -> None:
    """Also where it is idempotent: the harm is to its workers."""
    state = EntryState(row(), status="quarantined", may_have_started=True)
    reason = "quarantined; it killed its worker too often"
    left = decide(IDEMPOTENT, state, unsafe=False)
    assert left == Decision("a", "leave", reason, unsafe=True)
    assert decide(IDEMPOTENT, replace(state, is_requeued=True), unsafe=False) == left
    insisted = decide(IDEMPOTENT, state, unsafe=True)
    assert insisted == Decision("a", "send", "quarantined", unsafe=True)


@pytest.mark.parametrize(
    ("entry", "unsafe", "later"),
    [
        (IDEMPOTENT, False, True),
        (ONCE, True, True),
        (ONCE, False, False),
    ],
)
def test_an_old_tree_is_waited_for_before_its_entry_is_sent_again(
    entry: Entry, unsafe: bool, later: bool
) -> None:
    """And then it is sent, where it would have been without that tree."""
    state = EntryState(
        row(), status="failed", location="with_worker", may_have_started=True, tree_goes_on=True
    )
    decision = decide(entry, state, unsafe=unsafe)
    reason = "its job has ended, and tasks that it started may still run"
    risky = later and not entry.idempotent
    assert decision == Decision("a", "wait", reason, risky, later)
    (line, *_) = describe_decisions([decision])
    assert line == f"waits for 'a': {reason}{'; then it is sent again' if later else ''}"


KINDS: tuple[VerdictStatus | None, ...] = (
    None,
    "passed",
    "failed",
    "lost",
    "crashed",
    "timed_out",
    "revoked",
    "quarantined",
    "skipped",
)
STATES: tuple[SendState, ...] = ("planned", "intent", "sent", "uncertain", "withheld", "withdrawn")
PLACES: tuple[Location | None, ...] = (
    None,
    "queued",
    "unacked_by_dead",
    "with_worker",
    "unknown",
    "missing",
)


@given(
    send_state=st.sampled_from(STATES),
    status=st.sampled_from(KINDS),
    location=st.sampled_from(PLACES),
    started=st.booleans(),
    idempotent=st.booleans(),
    unsafe=st.booleans(),
)
def test_nothing_is_silently_run_twice(
    send_state: SendState,
    status: VerdictStatus | None,
    location: Location | None,
    started: bool,
    idempotent: bool,
    unsafe: bool,
) -> None:
    """What is under way, or may have run and is not idempotent, is never sent of itself."""
    entry = IDEMPOTENT if idempotent else ONCE
    state = EntryState(row(send_state), status, location, started)
    decision = decide(entry, state, unsafe=unsafe)
    if decision.action != "send":
        return
    assert location in (None, "missing")
    assert status != "passed"
    assert not started or idempotent or unsafe
    assert status != "quarantined" or unsafe


def test_only_what_was_really_sent_gets_another_attempt(tmp_path: Path) -> None:
    """An attempt that never left keeps its number, and so its task id."""
    path = tmp_path / "m.jsonl"
    entries = [ONCE, Entry(id="b", task="t"), Entry(id="c", task="t")]
    write_manifest(path, Header(), entries)
    manifest = read_manifest(path)
    decided = [Decision(name, "send", "lost") for name in ("a", "b", "c")]
    decided.insert(1, Decision("d", "keep", "passed"))
    last = {
        "a": row("sent", 2),
        "b": AttemptRow("t-b", "b", 1, 1, "planned", None, None),
    }
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        found = plan_decisions(ledger, manifest, decided, RUN, last)
    assert found == [
        attempt_of(RUN, ONCE, 3, 0),
        Attempt(RUN, entries[1], 1, "t-b"),
        attempt_of(RUN, entries[2], 1, 2),
    ]


def test_decisions_are_in_the_ledger_before_anything_is_sent(tmp_path: Path) -> None:
    """Attempts with their reasons, and what they replace: verdicts, digest, status."""
    path = tmp_path / "m.jsonl"
    entries = [ONCE, Entry(id="b", task="t"), Entry(id="c", task="t"), Entry(id="d", task="t")]
    manifest = write_manifest(path, Header(), entries)
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-1", "a", 1, 0), ("t-b", "b", 1, 1), ("t-d", "d", 1, 3)])
        ledger.attempts.mark(["t-1", "t-d"], "sent", sent_at=MOMENT)
        ledger.attempts.mark(["t-b"], "withheld")
        ledger.verdicts.record([(verdict(name, "failed"), None) for name in ("a", "b", "d")])
        ledger.info.set_status("stopped")
        segments = len(ledger.info.segments())
        last = {one.entry: one for one in ledger.attempts.newest()}
        decided = [Decision(name, "send", f"{name} was lost") for name in ("a", "b", "c")]
        plan_decisions(ledger, manifest, decided, RUN, last)
        assert [
            (one.entry, one.attempt, one.position, one.state, one.reason)
            for one in sorted(ledger.attempts.all(), key=lambda one: (one.entry, one.attempt))
        ] == [
            ("a", 1, 0, "sent", None),
            ("a", 2, 0, "planned", "a was lost"),
            ("b", 1, 1, "planned", None),
            ("c", 1, 2, "planned", "c was lost"),
            ("d", 1, 3, "sent", None),
        ]
        found = by_sql(ledger.path, "SELECT why FROM v_attempts ORDER BY entry, attempt")
        assert found == [(None,), ("resume",), (None,), ("resume",), (None,)]
        assert ledger.verdicts.statuses() == {"d": "failed"}
        assert ledger.info.sent_on_request() == set()
        assert ledger.info.status == "running"
        assert len(ledger.info.segments()) == segments + 1


def test_what_an_operator_wants_again_is_planned_as_that(tmp_path: Path) -> None:
    """The record says of each whether a resume or a person has sent it again."""
    path = tmp_path / "m.jsonl"
    manifest = write_manifest(path, Header(), [ONCE, Entry(id="b", task="t")])
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        ledger.attempts.plan([("t-1", "a", 1, 0), ("t-b", "b", 1, 1)])
        ledger.attempts.mark(["t-1", "t-b"], "sent", sent_at=MOMENT)
        ledger.verdicts.record([(verdict(name, "failed"), None) for name in ("a", "b")])
        last = {one.entry: one for one in ledger.attempts.newest()}
        decided = [Decision("a", "send", "failed", is_requeued=True), Decision("b", "send", "lost")]
        plan_decisions(ledger, manifest, decided, RUN, last)
        found = by_sql(ledger.path, "SELECT why FROM v_attempts ORDER BY entry, attempt")
        assert found == [(None,), ("requeue",), (None,), ("resume",)]
        assert ledger.verdicts.statuses() == {}
        taken_up = ledger.events.each(TakenUp, ["t-1", "t-b"])
        assert {name: [one.why for one in some] for name, some in taken_up.items()} == {
            "t-1": ["requeue"],
            "t-b": ["resume"],
        }


def test_what_was_asked_for_and_has_not_run_is_still_asked_for(tmp_path: Path) -> None:
    """A second run that a person insisted on, and that was revoked, may be sent again."""
    path = tmp_path / "m.jsonl"
    write_manifest(path, Header(), [ONCE])
    manifest = read_manifest(path)
    with Ledger.create(tmp_path / "run.sqlite", INFO) as ledger:
        last, sent = {"a": row("sent", 1)}, set[str]()
        for unsafe in (True, False, False):
            decided = [Decision("a", "send", "revoked", unsafe=unsafe)]
            (attempt,) = plan_decisions(ledger, manifest, decided, RUN, last)
            sent.add(attempt.task_id)
            ledger.attempts.mark([attempt.task_id], "sent", sent_at=MOMENT)
            last = {"a": ledger.attempts.of_entry("a")[-1]}
        assert ledger.info.sent_on_request() == sent
        assert len(sent) == 3


@pytest.mark.parametrize(
    ("now", "change", "words"),
    [
        (Entry(id="a", task="t", kwargs={"x": 1}), "job", "its job was changed (kwargs)"),
        (
            Entry(id="a", task="t", headers={"tenant": "b"}),
            "job",
            "its job was changed (headers)",
        ),
        (Entry(id="a", task="t", timeout=5), "expectation", "expectation changed (timeout)"),
        (
            Entry.model_validate({"id": "a", "task": "t", "expect": {"result": None}}),
            "expectation",
            "expectation changed (result)",
        ),
        (Entry(id="a", task="t", tags=["new"], meta={"x": 1}), None, ""),
    ],
)
def test_a_change_names_its_fields(now: Entry, change: Change | None, words: str) -> None:
    """Jobs and expectations count; tags and notes do not."""
    assert change_of(now, ONCE) == (change, words)
    assert change_of(now, None) == ("new", "new in the manifest")


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        *((name, 1, True) for name in ("args", "kwargs", "headers")),
        *((name, 0, False) for name in ("args", "kwargs", "headers")),
        *((name, 1, 1.0) for name in ("args", "kwargs")),  # headers have no fractions
    ],
)
def test_what_json_keeps_apart_is_other_work(name: str, before: object, now: object) -> None:
    """Python does not: to it ``True``, 1 and 1.0 are equal. Nor is it the same expectation."""

    def entry(value: object) -> Entry:
        work = [{"x": value}] if name == "args" else {"x": value}
        fields = {"id": "a", "task": "t", name: work, "expect": {"result": value}}
        return Entry.model_validate(fields)

    assert change_of(entry(now), entry(before)) == ("job", f"its job was changed ({name})")
    same_work = entry(now).model_copy(update={name: getattr(entry(before), name)})
    assert change_of(same_work, entry(before)) == ("expectation", "expectation changed (result)")


def test_many_decisions_are_told_by_reason() -> None:
    """Few are told one by one; of many each reason once, with some ids and a count."""
    few = [Decision("a", "send", "lost"), Decision("b", "keep", "passed")]
    assert describe_decisions(few) == ["sends 'a': lost"]
    many = [Decision(f"e{n}", "send", "lost") for n in range(SHOWN + 1)]
    (line,) = describe_decisions(many)
    assert line == "sends 'e0', 'e1', 'e2', 'e3', 'e4' and 46 more: lost"
    assert len(describe_decisions(many, every=True)) == SHOWN + 1
    assert len(describe_decisions(many[:SHOWN])) == SHOWN
    rare = [Decision(f"r{n}", "wait", "still queued") for n in range(EXAMPLES)]
    names = "'r0', 'r1', 'r2', 'r3', 'r4'"
    assert describe_decisions(many + rare)[-1] == f"waits for {names}: still queued"
    left = Decision("a", "leave", "failed", unsafe=True)
    hint = "--manifest-resume=unsafe sends what is left as well"
    assert describe_decisions([left]) == ["leaves 'a': failed", hint]
    for no_such in (replace(left, unsafe=False), replace(left, action="send")):
        assert hint not in describe_decisions([no_such])


def test_what_waits_for_what_is_left_is_said_to_be_left() -> None:
    """Directly or not; what waits for something that is sent, waited for or has passed is sent."""
    sends = Decision("x", "send", "lost")
    decided = [
        *(replace(sends, entry="c", after=("b",)), replace(sends, entry="b", after=("a", "ok"))),
        *(Decision("a", "leave", "failed"), Decision("ok", "keep", "passed", after=("a",)), sends),
        *(replace(sends, entry="d", after=("x", "w", "ok")), Decision("w", "wait", "still queued")),
        replace(sends, entry="out", after=("deselected",), unsafe=True),
        *(Decision("k", "keep", CANCELLED), replace(sends, entry="f", after=("k",))),
    ]
    assert describe_decisions(decided) == [
        "leaves 'c': it waits for 'b', which has not passed",
        "leaves 'b': it waits for 'a', which has not passed",
        *(
            "leaves 'a': failed",
            "sends 'x': lost",
            "sends 'd': lost",
            "waits for 'w': still queued",
        ),
        "leaves 'out': it waits for 'deselected', which has not passed",
        "leaves 'f': it waits for 'k', which has not passed",
    ]
    many = [replace(sends, entry=f"e{n}", after=(f"z{n}",)) for n in range(SHOWN + 1)]
    (line,) = describe_decisions(many)
    assert line.startswith("leaves 'e0', ")
    assert line.endswith(" and 46 more: what it waits for has not passed")
