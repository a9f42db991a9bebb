"""A ledger that is older than what was sent by it: what it calls unsent is not sent twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.errors import DispatchError
from pytest_manifest.ledger import OLDER, STORE_EMPTIED, TO_REUSE
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run.older_ledger import NOTE, has_traces, was_read_on
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.run.resume_rules import ResumeRules
from pytest_manifest.schema import Receipt
from pytest_manifest.text import plural
from pytest_manifest.verdict.problems import StoreOlder
from tests.unit.resume_rig import ResumeRig, entry, resume_rig
from tests.unit.run_fakes import FakeStream

UNSENT = ("send", "never sent")
LEFT = ("leave", "lost in flight; it may have run and is not idempotent")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ResumeRig]:
    """A run of ``a``, ``b``, ``c`` and the idempotent ``i``, by a copy from before it sent them."""
    entries = [*map(entry, "abc"), entry("i", idempotent=True)]
    with resume_rig(tmp_path, *entries) as made:
        with made.ledger() as ledger:
            ledger._db.connection.execute("UPDATE attempts SET state = 'planned', sent_at = NULL")
        yield made


def doubted(rig: ResumeRig) -> bool:
    """Whether the ledger was found to be older, with all that this means."""
    assert rig.resumed is not None
    with rig.ledger() as ledger:
        assert list(ledger.promises.sent_without_time()) == []
        assert list(ledger.promises.run_though_unsent()) == []
        found = ledger.info.get_meta(STORE_EMPTIED) == OLDER
        uncertain = [row for row in ledger.attempts.all() if row.state == "uncertain"]
    assert all(row.note == NOTE for row in uncertain)
    warning = (
        f"{rig.path} is older than what was sent by it: jobs are out, or have run, that it calls "
        "unsent. It is a copy that was resumed elsewhere, or lacks the -wal file that was "
        f"beside it. So {plural(len(uncertain), 'entry')} may have been sent, and what is nowhere "
        "and not idempotent is left; go on with the newest ledger, if there is one"
    )
    assert rig.resumed.state.warnings == [warning] * found
    assert bool(uncertain) == found
    return found


def test_what_has_left_no_trace_is_sent(rig: ResumeRig) -> None:
    """As its first attempt, which was only planned."""
    made = rig.resume()
    assert set(rig.decided().values()) == {UNSENT}
    assert [one.number for one in rig.to_send()] == [1] * 4
    assert not made.state.pending
    assert not doubted(rig)


def test_the_time_of_what_was_searched_for_begins_when_it_is_sent(tmp_path: Path) -> None:
    """It was searched for as if it were as old as the run, and is due by that no more."""
    with resume_rig(tmp_path, entry("a", deadline=1.0)) as rig:
        with rig.ledger() as ledger:
            ledger._db.connection.execute("UPDATE attempts SET state = 'planned', sent_at = NULL")
        pending = rig.resume().state.pending
        [attempt] = rig.to_send()
        pending.track(attempt, sent := time.monotonic())
        assert not pending.overdue(sent)
        assert pending.overdue(sent + 2)


def test_what_waits_is_waited_for(rig: ResumeRig) -> None:
    """One message is enough to believe nothing of what the ledger calls unsent."""
    rig.queue("b")
    made = rig.resume()
    assert rig.decided() == {
        "a": LEFT,
        "b": ("wait", "still queued"),
        "c": LEFT,
        "i": ("send", "lost in flight"),
    }
    assert [(one.entry.id, one.number) for one in rig.to_send()] == [("i", 2)]
    assert set(made.state.pending.by_task_id) == {rig.task_id("b")}
    assert rig.statuses() == {"a": "unknown", "c": "unknown"}
    with rig.ledger() as ledger:
        found = ledger.verdicts.of_entry("a")
    assert found is not None
    assert StoreOlder.says in found.verdict.sentence
    assert doubted(rig)


def test_what_runs_is_waited_for_and_what_has_ended_is_judged(rig: ResumeRig) -> None:
    """By its receipt, of which this ledger does not know when its message was sent."""
    rig.end("a")
    rig.begin("b")
    rig.resume()
    assert rig.decided()["a"] == ("keep", "passed")
    assert rig.decided()["b"] == ("wait", "held or run by a worker")
    assert rig.decided()["c"] == LEFT
    assert rig.statuses() == {"a": "passed", "c": "unknown"}
    assert doubted(rig)


def test_an_end_alone_is_a_trace(rig: ResumeRig) -> None:
    rig.end("a")
    rig.resume()
    assert [one.entry.id for one in rig.to_send()] == ["i"]
    assert doubted(rig)


def test_a_stream_that_another_has_read_is_a_trace(
    rig: ResumeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs have ended, and what was told of them was taken out of the store."""
    monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: True)
    monkeypatch.setattr(FakeStream, "is_intact", lambda stream: False)
    rig.resume()
    assert rig.resumed is not None
    assert len(rig.resumed.state.warnings) == 1
    assert [one.entry.id for one in rig.to_send()] == ["i"]
    assert doubted(rig)


def test_what_another_has_read_is_not_said_to_be_emptied(rig: ResumeRig) -> None:
    """Also where nothing was unsent, and nothing more is written down."""
    stream = cast("ReceiptCollector", SimpleNamespace(was_read_on=lambda: True))
    with rig.ledger() as ledger:
        assert was_read_on(ledger, stream)
        assert ledger.info.get_meta(STORE_EMPTIED) == OLDER
        assert not was_read_on(ledger, stream)


def test_an_emptied_stream_is_none(rig: ResumeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was marked anew since, and may have lost its records before that."""
    with rig.ledger() as ledger:
        ledger.info.set_meta(STORE_EMPTIED, "1")
    monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: True)
    rig.resume()
    assert set(rig.decided().values()) == {UNSENT}


def test_a_kept_receipt_is_a_trace(rig: ResumeRig) -> None:
    """An audit of the copy has read it, and judged nothing by it."""
    with rig.ledger() as ledger:
        told = rig.receipt("a", "failed", executions=1, source="worker")
        ledger.events.add_receipts([(rig.task_id("a"), None, told)])
    rig.resume(["a", "b"])
    assert rig.to_send() == []
    assert set(rig.statuses()) == {"a", "b"}
    assert doubted(rig)


def test_you_may_insist(rig: ResumeRig) -> None:
    """What is nowhere is sent as a second attempt then, and what is somewhere is not."""
    rig.queue("b")
    rig.resume(rules=ResumeRules(unsafe=True))
    assert [(one.entry.id, one.number) for one in rig.to_send()] == [("a", 2), ("c", 2), ("i", 2)]


def test_a_later_session_believes_it_no_more(rig: ResumeRig) -> None:
    """What is nowhere then is unknown, never lost."""
    rig.queue("a", "b")
    rig.resume()
    assert rig.resumed is not None
    rig.resumed.state.lock.release()
    rig.world.queue.clear()
    rig.resume()
    assert [one.entry.id for one in rig.to_send()] == ["i"]
    assert {name: rig.statuses()[name] for name in "abc"} == dict.fromkeys("abc", "unknown")
    with rig.ledger() as ledger:
        assert ledger.info.get_meta(STORE_EMPTIED) == OLDER


def test_what_was_not_selected_is_doubted_as_well(rig: ResumeRig) -> None:
    """A later session may find no trace of it: its record is read, and the message gone."""
    rig.queue("a")
    rig.resume(["a"])
    assert rig.resumed is not None
    rig.resumed.state.lock.release()
    rig.world.queue.clear()
    rig.resume(["b", "c", "i"])
    assert [(one.entry.id, one.number) for one in rig.to_send()] == [("i", 2)]
    assert {name: rig.statuses()[name] for name in "bc"} == dict.fromkeys("bc", "unknown")


@pytest.mark.parametrize("selected", [None, ["b"]], ids=["all", "some"])
def test_what_was_to_be_reused_has_been_looked_for_by_the_newer_copy(
    rig: ResumeRig, selected: list[str] | None
) -> None:
    """Of the older one, which knows of no look, nothing is sent again, nor is it begun anew."""
    with rig.ledger() as ledger:
        ledger.info.set_meta(TO_REUSE, "[]")
    rig.end("b")
    rig.resume(selected)
    assert {one.entry.id for one in rig.to_send()} <= {"i"}
    assert rig.statuses()["b"] == "passed"
    with rig.ledger() as ledger:
        assert not ledger.info.get_meta(TO_REUSE)
    assert doubted(rig)


def test_where_nothing_was_looked_for_the_run_is_begun_anew(rig: ResumeRig) -> None:
    """As nothing of it is out, and all that has passed before would be sent."""
    with rig.ledger() as ledger:
        ledger.info.set_meta(TO_REUSE, "[]")
    made = rig.make()
    with pytest.raises(DispatchError, match="nothing of it was sent, so begin it again"):
        made.prepare(None)
    made.abandon()
    with rig.ledger() as ledger:
        assert ledger.info.get_meta(TO_REUSE) == "[]"
        assert {row.state for row in ledger.attempts.all()} == {"planned"}


def report(task_id: str) -> Receipt:
    return Receipt(run="r", entry="a", attempt=1, task_id=task_id, task="t", state="succeeded")


@pytest.mark.parametrize(
    ("told", "is_trace"),
    [({}, False), ({"started": 1.0}, True), ({"unconfirmed": report("t")}, True)],
    ids=["nothing", "a start", "an end that the store alone has"],
)
def test_what_is_told_of_one_that_is_still_awaited(
    rig: ResumeRig, told: dict[str, object], *, is_trace: bool
) -> None:
    pending = PendingAttempts()
    pending.track(Attempt("r", entry("a"), 1, "t"), 0.0)
    for name, value in told.items():
        setattr(pending.by_task_id["t"], name, value)
    with rig.ledger() as ledger:
        assert has_traces(ledger, pending, ["t"], seen=()) == is_trace
        assert not has_traces(ledger, pending, [], seen=())
