"""A ledger that is older than what was sent by it is refused: nothing is sent by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.errors import DispatchError
from pytest_manifest.ledger import TO_REUSE
from pytest_manifest.run.inflight import PendingAttempts
from pytest_manifest.run.resume import refuse_traces
from pytest_manifest.schema import Receipt
from tests.reports import EMPTIED, add_receipts, is_emptied, note
from tests.unit.resume_rig import ResumeRig, entry, resume_rig
from tests.unit.run_fakes import FakeStream

UNSENT = ("send", "never sent")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ResumeRig]:
    """A run of ``a``, ``b``, ``c`` and the idempotent ``i``, by a copy from before it sent them."""
    entries = [*map(entry, "abc"), entry("i", idempotent=True)]
    with resume_rig(tmp_path, *entries) as made:
        with made.ledger() as ledger:
            ledger._db.connection.execute("UPDATE jobs SET state = 'planned', sent_at = NULL")
        yield made


def refused(rig: ResumeRig, why: str, *selected: str) -> None:
    """Nothing is sent, not even where one insists, and the ledger is as it was."""
    waiting, held = list(rig.world.queue), dict(rig.world.unacked)
    for unsafe in (False, True):
        made = rig.make(selected or None, unsafe=unsafe)
        said = (
            rf"run\.sqlite: is older than what was sent by it: {why}; nothing was sent: go on with"
        )
        with pytest.raises(DispatchError, match=said):
            made.prepare(None)
        made.abandon()
    assert (list(rig.world.queue), rig.world.unacked) == (waiting, held)
    assert rig.statuses() == {}
    with rig.ledger() as ledger:
        assert {row.state for row in ledger.attempts.all()} == {"planned"}
        assert not is_emptied(ledger)


def test_what_has_left_no_trace_is_sent(rig: ResumeRig) -> None:
    """As its first attempt, which was only planned."""
    made = rig.resume()
    assert set(rig.decided().values()) == {UNSENT}
    assert [one.number for one in rig.to_send()] == [1] * 4
    assert not made.state.pending
    assert made.state.warnings == []


def test_the_time_of_what_was_searched_for_begins_when_it_is_sent(tmp_path: Path) -> None:
    """It was searched for as if it were as old as the run, and is due by that no more."""
    with resume_rig(tmp_path, entry("a", deadline=1.0)) as rig:
        with rig.ledger() as ledger:
            ledger._db.connection.execute("UPDATE jobs SET state = 'planned', sent_at = NULL")
        pending = rig.resume().state.pending
        [attempt] = rig.to_send()
        pending.track(attempt, sent := time.monotonic())
        assert not pending.overdue(sent)
        assert pending.overdue(sent + 2)


def test_a_message_of_what_is_called_unsent_is_a_trace(rig: ResumeRig) -> None:
    """One is enough, also of a dead worker: nothing of it is moved."""
    rig.queue("b")
    refused(rig, "'b' are out, or have run, and it calls them unsent")
    rig.world.take(rig.world.workers["w1@box"])
    del rig.world.workers["w1@box"]
    refused(rig, "'b' are out, or have run, and it calls them unsent")


def test_what_runs_and_what_has_ended_is_a_trace(rig: ResumeRig) -> None:
    rig.end("a")
    rig.begin("b")
    refused(rig, "'a', 'b' are out, or have run, and it calls them unsent")


def test_a_stream_that_another_has_read_is_a_trace(
    rig: ResumeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs have ended, and what was reported of them was taken out of the store."""
    monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: True)
    monkeypatch.setattr(FakeStream, "is_intact", lambda stream: False)
    refused(rig, "what workers reported since has been read by another")


def test_where_all_was_sent_a_stream_that_another_has_read_is_a_trace_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in flight may have been begun, and nobody would know; what has ended has ended."""
    with resume_rig(tmp_path) as rig:
        monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: True)
        made = rig.make(["a"])
        with pytest.raises(DispatchError, match="has been read by another"):
            made.prepare(None)
        made.abandon()
        monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: False)
        rig.end("a")
        rig.resume(["a"])
        assert rig.resumed is not None
        rig.resumed.state.lock.release()
        monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: True)
        rig.resume(["a"])
        assert rig.decided() == {"a": ("keep", "passed")}


def test_an_emptied_stream_is_none(rig: ResumeRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was marked anew since, and may have lost its records before that."""
    with rig.ledger() as ledger:
        note(ledger, EMPTIED)
    monkeypatch.setattr(FakeStream, "was_read_on", lambda stream: True)
    rig.resume()
    assert set(rig.decided().values()) == {UNSENT}


def test_a_kept_receipt_is_a_trace(rig: ResumeRig) -> None:
    """An audit of the copy has read it, and judged nothing by it."""
    with rig.ledger() as ledger:
        told = rig.receipt("a", "failed", executions=1, source="worker")
        add_receipts(ledger, [(rig.task_id("a"), None, told)])
    refused(rig, "'a' are out, or have run, and it calls them unsent", "a", "b")


def test_what_was_to_be_reused_has_been_looked_for_by_the_newer_copy(rig: ResumeRig) -> None:
    """So it is not begun anew either."""
    with rig.ledger() as ledger:
        ledger.info.set_meta(TO_REUSE, "[]")
    rig.end("b")
    refused(rig, "'b' are out, or have run, and it calls them unsent")


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
        ledger.attempts.plan([("t", "a", 2, 0)])
        with pytest.raises(DispatchError) if is_trace else nullcontext():
            refuse_traces(ledger, pending, ["t"], seen=())
        refuse_traces(ledger, pending, [], seen=())
