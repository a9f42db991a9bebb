"""A run that is resumed: what it calls unsent, what is not selected, what it had told before."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from pytest_manifest.ledger import Descendant
from pytest_manifest.ledger.rows import note_of
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run import resume
from pytest_manifest.run.fact_log import note_emptied, stamp
from pytest_manifest.schema.facts import Recalled, Reused, Withheld
from tests.reports import is_emptied, node, note
from tests.unit.ledger_support import INFO
from tests.unit.resume_rig import ResumeRig, entry, resume_rig

RISKY = "; it may have run and is not idempotent"
UNSENT = ("send", "never sent")


def unsend(rig: ResumeRig, *names: str, state: str = "planned") -> None:
    """Have the ledger say that these were never sent."""
    with rig.ledger() as ledger:
        ledger.attempts.mark([rig.task_id(name) for name in names], state)  # type: ignore[arg-type]  # a state of the tests


# What is called unsent


def test_what_was_never_sent_is_not_waited_for_where_nobody_can_tell_what_waits(
    rig: ResumeRig,
) -> None:
    """As on a broker that does not show what is in its queues."""
    unsend(rig, "a")
    with mock.patch.object(resume, "locations_of") as located:
        located.return_value = {rig.task_id(name): "unknown" for name in "abc"}
        made = rig.resume()
    assert rig.decided() == {
        "a": UNSENT,
        **dict.fromkeys("bc", ("wait", "it may still be queued or running")),
    }
    assert made.state.warnings == []


def test_where_nothing_can_be_looked_for_nothing_is_known_of_what_was_sent(rig: ResumeRig) -> None:
    """And what ends meanwhile has its verdict."""
    unsend(rig, "a")
    made = rig.make()

    def locate(_: object) -> dict[str, object]:
        rig.end("c")
        return {}

    with mock.patch.object(made, "_locate", side_effect=locate):
        made.prepare(None)
    assert {name: action for name, (action, _) in rig.decided().items()} == {
        "a": "send",
        "b": "send",
        "c": "keep",
    }


def test_a_run_without_a_search_is_resumed(rig: ResumeRig) -> None:
    """Nothing is asked of a broker then."""
    made = rig.make()
    with mock.patch.object(made.connections, "open_locator") as opened:
        made.prepare(None)
    assert [action for action, _ in rig.decided().values()] == ["send"] * 3
    publishers = {id(call.args[0]) for call in opened.call_args_list}
    assert len(publishers) == 1
    assert None not in [call.args[0] for call in opened.call_args_list]
    asked_for = [[one.id for one in call.args[1]] for call in opened.call_args_list]
    assert asked_for == [["a", "b", "c"], []]


def test_what_the_session_itself_says_of_what_it_left_out_is_no_trace(rig: ResumeRig) -> None:
    """No worker has told it."""
    unsend(rig, "a", state="withheld")
    with rig.ledger() as ledger:
        held = Withheld(**stamp(rig.task_id("a")), code="budget")
        ledger.facts.append([("a", held)])
    rig.judge("a", "skipped", rig.receipt("a", "rejected", source="harness"))
    made = rig.resume(["a"])
    assert rig.decided() == {"a": ("send", "never sent (skipped)")}
    assert made.state.warnings == []


# What has nothing to lose


def test_a_run_that_has_sent_nothing_in_any_way_has_nothing_to_lose(rig: ResumeRig) -> None:
    """Planned, left out, and reused."""
    unsend(rig, "b")
    unsend(rig, "c", state="withheld")
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        origin = note_of(Reused(run="r", entry="a", attempt=1, by=INFO.run, at=rig.sent_at))
        ledger._db.connection.execute(
            "UPDATE jobs SET state = 'reused', attempt = 0, reused_from = ? WHERE name = 'a'",
            (origin,),
        )
    made = rig.resume(["b", "c"])
    assert made.state.warnings == []
    with rig.ledger() as ledger:
        assert not is_emptied(ledger)


def test_a_store_that_has_lost_what_was_told_is_remembered(rig: ResumeRig) -> None:
    """Also where nothing was to be looked for: late ends of what has passed are lost with it."""
    for name in "ab":
        rig.end(name)
    rig.resume(["a", "b"])
    rig.resumed.state.lock.release()  # type: ignore[union-attr]  # it was made just now
    unsend(rig, "c")
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        ledger.info.set_status("running")
    rig.resume()
    assert [one.entry.id for one in rig.to_send()] == ["c"]
    with rig.ledger() as ledger:
        assert is_emptied(ledger)


def test_a_stream_that_begins_anew_lasts_as_long_as_the_first(rig: ResumeRig) -> None:
    """By what the run was made with."""
    unsend(rig, "a", "b", "c")
    rig.world.began_stream = False
    with mock.patch.object(ReceiptCollector, "begin", autospec=True) as begun:
        rig.resume()
    assert [call.args[1] for call in begun.call_args_list] == [3600]


# What is not selected


@pytest.mark.parametrize("judged", [False, True])
def test_what_a_dead_worker_holds_of_another_entry_is_left_alone(
    rig: ResumeRig, *, judged: bool
) -> None:
    """Nobody has asked for it."""
    worker = rig.world.workers["w1@box"]
    rig.queue("b")
    rig.world.take(worker)
    del rig.world.workers[worker.name]
    if judged:
        rig.judge("b", "timed_out")
    rig.resume(["a"])
    assert [message.task_id for message in rig.world.unacked.values()] == [rig.task_id("b")]
    assert not rig.world.queue


# What is left


def test_what_is_waited_for_or_sent_again_is_not_judged(rig: ResumeRig) -> None:
    """Only what is left is."""
    rig.queue("a")
    rig.resume()
    with rig.ledger() as ledger:
        attempts = {name: ledger.attempts.of_entry(name)[0] for name in "abc"}
    assert {name: one.status for name, one in attempts.items()} == dict.fromkeys("abc")


def test_a_verdict_that_is_there_stays_and_the_others_get_one(rig: ResumeRig) -> None:
    """One that was told for want of a receipt is not told anew where nothing has come."""
    with rig.ledger() as ledger:
        back = Recalled(**stamp(rig.task_id("a")), why="time", stage="heard")
        ledger.facts.append([("a", back)])
        note_emptied(ledger)
    rig.judge("a", "timed_out")
    rig.resume()
    assert {action for action, _ in rig.decided().values()} == {"leave"}
    assert rig.statuses() == {"a": "timed_out", "b": "unknown", "c": "unknown"}


def test_what_was_not_put_back_as_it_may_have_begun_is_waited_for(tmp_path: Path) -> None:
    """A worker of others would have said nothing of it; its broker gives it back some time."""
    with resume_rig(tmp_path, is_private=False) as rig:
        worker = rig.world.workers["w1@box"]
        rig.queue("a")
        rig.world.take(worker)
        del rig.world.workers[worker.name]
        with rig.ledger() as ledger:
            note(ledger, node("w9@box", "stock"))
        rig.resume(["a"], repair=True)
        assert len(rig.world.unacked) == 1
        assert rig.decided()["a"] == ("wait", "it may still be queued or running")


def test_what_a_search_was_made_for_knows_what_is_repeated_later(tmp_path: Path) -> None:
    """Those who judge were made before it was decided."""
    with resume_rig(tmp_path, entry("a", idempotent=True)) as rig:
        rig.judge("a", "failed", rig.receipt("a", "failed", runtime=1.0))
        root = rig.task_id("a")
        with rig.ledger() as ledger:
            ledger.descendants.add([Descendant("d1", root, root, "u", "call")])
        made = rig.make()
        with mock.patch.object(resume, "locations_with_trees") as located:
            located.return_value = {root: "with_worker"}
            made.prepare(None)
        assert rig.decided()["a"][0] == "wait"
        assert made.to_repeat == {"a"}


# What is written down


def test_the_number_of_workers_is_handed_on(rig: ResumeRig) -> None:
    """So many must answer before something is sent."""
    made = rig.make()
    with mock.patch.object(resume, "admit") as admitted:
        made.prepare(7)
    assert admitted.call_args.args[2] == 7


def test_a_session_that_never_counted_leaves_the_status(rig: ResumeRig) -> None:
    """As pytest had it when it was killed."""
    with rig.ledger() as ledger:
        ledger.info.set_status("running")
    made = rig.make()
    made.prepare(None)
    made.abandon()
    with rig.ledger() as ledger:
        assert ledger.info.status == "running"
