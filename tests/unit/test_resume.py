"""A run that is resumed: what is read, searched, decided, written down and sent again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal
from unittest.mock import MagicMock

import pytest

from pytest_manifest import signing as keys
from pytest_manifest.errors import DispatchError, LedgerError
from pytest_manifest.ledger import Descendant
from pytest_manifest.ledger.files import RunFiles
from pytest_manifest.ledger.rows import note_of
from pytest_manifest.processes import own_identity
from pytest_manifest.run.casebook import require_signatures
from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.run.resume import Resume, resume_run
from pytest_manifest.run.search import Departures, WorkerFacts
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.schema.facts import Reused
from pytest_manifest.worker import signing
from tests.reports import add_starts, is_emptied, started
from tests.simulation.stack import address
from tests.unit.ledger_support import INFO, NOTHING, verdict
from tests.unit.resume_rig import ResumeRig, entry, resume_rig
from tests.unit.run_world import FIRST_PID, Message

QUEUED = ("wait", "still queued")
LOST = ("send", "lost")
RISKY = "; it may have run and is not idempotent"


# What is found


def test_what_waits_is_waited_for_and_what_is_nowhere_is_sent_again(rig: ResumeRig) -> None:
    """And what has ended since is judged by its receipt."""
    rig.queue("a")
    rig.end("c")
    made = rig.resume()
    assert rig.decided() == {"a": QUEUED, "b": LOST, "c": ("keep", "passed")}
    assert [(one.entry.id, one.number) for one in rig.to_send()] == [("b", 2)]
    assert set(made.state.pending.by_task_id) == {rig.task_id("a")}
    assert rig.statuses() == {"c": "passed"}
    with rig.ledger() as ledger:
        assert ledger.info.status == "running"
        newest = {one.entry: (one.attempt, one.state) for one in ledger.attempts.newest()}
    assert newest == {"a": (1, "sent"), "b": (2, "planned"), "c": (1, "sent")}


def test_what_is_not_selected_stays_as_it_is(rig: ResumeRig) -> None:
    """Nothing of it is read, searched or judged, whatever became of it."""
    rig.judge("b", "unknown")
    rig.judge("c", "pending")
    made = rig.resume(["a"])
    assert rig.decided() == {"a": LOST}
    assert [one.entry.id for one in rig.to_send()] == ["a"]
    assert not made.state.pending
    assert rig.statuses() == {"b": "unknown", "c": "pending"}


def test_where_nothing_is_sent_no_worker_is_asked(rig: ResumeRig) -> None:
    """One of them may be wrong for what is to be sent."""
    rig.queue("a", "b", "c")
    rig.resume()
    assert rig.to_send() == []
    publisher = rig.moments.count("publisher")
    assert publisher == 0
    assert rig.resumed is not None
    assert rig.resumed.connections.nodes == set()


def test_workers_are_asked_before_something_is_sent(rig: ResumeRig) -> None:
    """Those that answer are the run's."""
    made = rig.resume()
    assert made.connections.nodes == {"w1@box", "w2@box"}
    assert len(rig.to_send()) == 3


def test_a_receipt_that_was_kept_is_not_read_again(rig: ResumeRig) -> None:
    """The ledger has it, and has no verdict by it."""
    rig.end("a")
    (number,) = [one.number for one in rig.world.stream if not one.started]
    rig.resume(["a"])
    assert rig.statuses() == {"a": "passed"}
    with rig.ledger() as ledger:
        ledger.verdicts.reopen(["a"])
        assert ledger.info.get_meta("stream_position") == str(number)
    assert rig.resumed is not None
    rig.resumed.state.lock.release()
    rig.world.stream.clear()
    rig.resume(["a"])
    assert rig.statuses() == {"a": "passed"}
    with rig.ledger() as ledger:
        assert len(ledger.events.receipts(rig.task_id("a"))) == 1


def test_the_stream_is_read_from_where_it_was_left(rig: ResumeRig) -> None:
    """And not from its beginning."""
    rig.end("a")
    with rig.ledger() as ledger:
        ledger.info.set_meta("stream_position", str(rig.world.stream[-1].number))
    rig.world.results.clear()
    rig.end("b")
    rig.resume(["a", "b"])
    assert rig.decided()["b"] == ("keep", "passed")
    assert rig.decided()["a"][0] != "keep"


def test_what_a_worker_has_begun_may_run_twice(rig: ResumeRig) -> None:
    """So it is left where it is nowhere any more, and its verdict says why."""
    delivery = rig.begin("a")
    rig.world.workers["w1@box"].running.remove(delivery)
    made = rig.resume(["a"])
    assert rig.decided() == {"a": ("leave", f"lost in flight{RISKY}")}
    assert rig.to_send() == []
    assert not made.state.pending
    with rig.ledger() as ledger:
        found = ledger.verdicts.of_entry("a")
    assert found is not None
    assert (found.verdict.verdict, found.verdict.attempt) == ("lost", 1)
    assert f"lost in flight{RISKY}; started on w1@box" in found.verdict.sentence


def test_what_is_insisted_on_is_sent_all_the_same(rig: ResumeRig) -> None:
    """And it is written down that somebody has asked for it."""
    delivery = rig.begin("a")
    rig.world.workers["w1@box"].running.remove(delivery)
    rig.resume(["a"], unsafe=True)
    (again,) = rig.to_send()
    assert again.number == 2
    with rig.ledger() as ledger:
        assert ledger.info.sent_on_request() == {again.task_id}
        assert ledger.verdicts.of_entry("a") is None


def test_without_an_answer_of_the_broker_nothing_is_sent(rig: ResumeRig) -> None:
    """And the ledger stays as it was."""
    rig.judge("b", "unknown")
    rig.world.broker_down = 1e9
    made = rig.make()
    with pytest.raises(DispatchError) as refused:
        made.prepare(None)
    assert str(refused.value) == (
        "run 20261124T150000-0123abcd is not resumed and nothing was sent, as the broker does not "
        "say which of its jobs still wait (the broker cannot be reached); try again when it "
        "answers"
    )
    made.abandon()
    assert rig.statuses() == {"b": "unknown"}
    with rig.ledger() as ledger:
        assert ledger.info.status == "stopped"


def test_a_message_beside_one_that_was_turned_away_is_left(rig: ResumeRig) -> None:
    """It was delivered twice; where there is none it is sent again."""
    for name in ("a", "b"):
        rig.judge(name, "rejected", rig.receipt(name))
    rig.queue("a")
    made = rig.resume(["a", "b"])
    assert rig.decided() == {
        "a": ("leave", "rejected, but its message is there twice"),
        "b": ("send", "rejected"),
    }
    assert not made.state.pending
    assert rig.statuses() == {"a": "rejected"}


def test_what_is_turned_away_while_it_is_searched_may_be_there_twice(rig: ResumeRig) -> None:
    """The search has seen another message, which is still there."""
    rig.queue("a", "a")
    worker = rig.world.workers["w1@box"]
    worker.revoked.add(rig.task_id("a"))

    def turn_away() -> None:
        rig.world.take(worker)
        assert rig.world.begin(worker) is None

    rig.world.between(6, turn_away)
    rig.resume(["a"])
    assert rig.decided() == {"a": ("leave", "revoked, but its message is there twice")}


def test_what_ends_while_it_is_searched_is_where_it_was_no_more(rig: ResumeRig) -> None:
    """Its receipt is read after the search."""
    delivery = rig.begin("a")
    worker = rig.world.workers["w1@box"]
    rig.world.between(6, lambda: rig.world.end(worker, delivery, "failed"))
    rig.resume(["a"])
    assert rig.decided() == {"a": ("leave", "failed; it has run and is not idempotent")}
    assert rig.statuses() == {"a": "failed"}


@pytest.mark.parametrize("repairs", [True, False])
@pytest.mark.parametrize("is_private", [True, False])
def test_what_a_dead_worker_holds_is_put_back_where_that_is_ours_to_do(
    tmp_path: Path, *, is_private: bool, repairs: bool
) -> None:
    """Else it is waited for."""
    with resume_rig(tmp_path, is_private=is_private) as rig:
        worker = rig.world.workers["w1@box"]
        rig.queue("a")
        rig.world.take(worker)
        del rig.world.workers[worker.name]
        rig.resume(["a"], repair=repairs)
        action, reason = rig.decided()["a"]
        assert action == "wait"
        put_back = is_private or repairs
        assert (reason == "still queued") == put_back
        assert ("held by a worker that is gone" in reason) == (not put_back)
        assert len(rig.world.queue) == put_back


@pytest.mark.parametrize("is_known", [True, False])
def test_what_a_silent_worker_has_taken_is_put_back_where_the_run_knew_its_process(
    rig: ResumeRig, *, is_known: bool
) -> None:
    """As an earlier session had asked for it; any other that says nothing may be busy."""
    worker = rig.world.workers["w1@box"]
    rig.queue("a")
    rig.world.take(worker)
    worker.alive = False
    own = own_identity()
    assert own is not None
    ended = replace(own, pid=FIRST_PID, group=FIRST_PID)
    known = Departures()
    known.meet({worker.name: WorkerFacts(ended if is_known else None, "prefork")}, 0.0)
    with rig.ledger() as ledger:
        known.keep(ledger.info)
    rig.resume(["a"])
    silent = ("wait", "it may still be queued or running")
    assert rig.decided() == {"a": QUEUED if is_known else silent}
    assert len(rig.world.queue) == is_known


# An emptied store


def test_an_emptied_store_makes_everything_doubtful(rig: ResumeRig) -> None:
    """What may have run is left, and that stays known; a new stream begins once it counts."""
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        ledger.info.set_meta("stream_position", "7")
        ledger.attempts.mark([rig.task_id("b")], "planned")
    made = rig.make()
    made.prepare(None)
    assert not rig.world.began_stream
    made.take_effect()
    assert rig.world.began_stream
    assert rig.decided() == {
        "a": ("leave", f"lost in flight{RISKY}"),
        "b": ("send", "never sent"),
        "c": ("leave", f"lost in flight{RISKY}"),
    }
    assert rig.statuses() == {"a": "unknown", "c": "unknown"}
    with rig.ledger() as ledger:
        assert is_emptied(ledger)
        assert ledger.info.get_meta("stream_position") == "0"
        found = ledger.verdicts.of_entry("a")
    assert found is not None
    assert "store" in found.verdict.sentence


def test_a_store_that_was_never_marked_is_not_an_emptied_one(rig: ResumeRig) -> None:
    """Nothing was sent, so nothing can be lost; the stream begins now."""
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        ledger.attempts.mark([rig.task_id(name) for name in "abc"], "planned")
    rig.resume()
    assert rig.world.began_stream
    assert [action for action, _ in rig.decided().values()] == ["send"] * 3
    with rig.ledger() as ledger:
        assert not is_emptied(ledger)


@pytest.mark.parametrize("status", ["stopped", "running"])
def test_a_run_that_has_reused_and_sent_nothing_has_nothing_to_lose(
    rig: ResumeRig, status: Literal["stopped", "running"]
) -> None:
    """What an earlier run has sent was never in its store."""
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        ledger.attempts.mark([rig.task_id(name) for name in "bc"], "planned")
        origin = note_of(Reused(run="r", entry="a", attempt=1, by=INFO.run, at=rig.sent_at))
        ledger._db.connection.execute(
            "UPDATE jobs SET state = 'reused', attempt = 0, reused_from = ? WHERE name = 'a'",
            (origin,),
        )
        ledger.info.set_status(status)
    made = rig.resume(["b", "c"])
    assert not made.state.warnings
    assert [one.entry.id for one in rig.to_send()] == ["b", "c"]
    with rig.ledger() as ledger:
        assert not is_emptied(ledger)


@pytest.mark.parametrize("status", ["stopped", "running"])
def test_a_store_that_ended_with_its_session_was_emptied_by_nobody(
    rig: ResumeRig, status: Literal["stopped", "running"]
) -> None:
    """A private one. Where pytest was killed, its data should be there."""
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        ledger.info.set_status(status)
    made = rig.resume()
    assert bool(made.state.warnings) == (status == "running")
    with rig.ledger() as ledger:
        assert is_emptied(ledger)


def test_an_emptied_store_is_not_begun_anew_for_nothing(rig: ResumeRig) -> None:
    """Where nothing is sent it would look intact."""
    rig.world.began_stream = False
    with rig.ledger() as ledger:
        ledger.info.set_meta("stream_position", "7")
    rig.resume()
    assert not rig.world.began_stream
    with rig.ledger() as ledger:
        assert ledger.info.get_meta("stream_position") == "7"


def test_a_whole_store_is_not_begun_anew(rig: ResumeRig) -> None:
    """Its records would be read twice."""
    with rig.ledger() as ledger:
        ledger.info.set_meta("stream_position", "7")
    rig.resume()
    with rig.ledger() as ledger:
        assert not is_emptied(ledger)
        assert ledger.info.get_meta("stream_position") == "7"


# Trees


@pytest.mark.parametrize("goes_on", [True, False])
def test_an_old_tree_is_waited_for_and_then_its_entry_is_sent(
    tmp_path: Path, *, goes_on: bool
) -> None:
    """Where it is still somewhere; what may be spent is written down for it."""
    with resume_rig(tmp_path, entry("a", idempotent=True), entry("b")) as rig:
        rig.judge("a", "failed", rig.receipt("a", "failed", runtime=1.0))
        root = rig.task_id("a")
        with rig.ledger() as ledger:
            ledger.descendants.add([Descendant("d1", root, root, "u", "call")])
            ledger.descendants.add([Descendant("d2", root, root, "u", "call")])
        rig.queue("b")
        if goes_on:
            child = replace(rig.attempts["a"], task_id="d1")
            rig.world.queue.append(Message(child, rig.sent_at))
        made = rig.resume(budget=5.0)
        (decision, other) = made.state.decisions
        assert other.action == "wait"
        if not goes_on:
            assert (decision.action, decision.reason) == ("send", "failed")
            assert made.to_repeat == set()
            return
        assert (decision.action, decision.sends_later) == ("wait", True)
        assert made.to_repeat == {"a"}
        assert rig.to_send() == []
        assert rig.reading.info.get_meta("budget") == "5.0"


# Budget


def test_a_budget_counts_what_is_to_come_and_what_was_spent(tmp_path: Path) -> None:
    """Of what is waited for the estimate, not both; nothing of what no worker has begun."""
    entries = [entry(name, cost=2.0) for name in "abc"]
    with resume_rig(tmp_path, *entries) as rig:
        rig.queue("a")
        rig.end("c")
        made = rig.make(budget=5.9)
        with pytest.raises(DispatchError, match=r"m\.jsonl"):
            made.prepare(None)
        made.abandon()
        made = rig.resume(budget=6.0)
        spent = {rig.task_id("b"): 0, rig.task_id("c"): 2}
        assert {task_id: int(cost) for task_id, cost in made.state.costs.items()} == spent
        with rig.ledger() as ledger:
            assert ledger.info.get_meta("budget") == "6.0"


def test_a_budget_refuses_nothing_where_nothing_is_sent(tmp_path: Path) -> None:
    """What is under way costs what it costs."""
    with resume_rig(tmp_path, entry("a", cost=2.0)) as rig:
        rig.queue("a")
        rig.resume(budget=1.0)
        assert rig.decided() == {"a": QUEUED}
        with rig.ledger() as ledger:
            assert ledger.info.get_meta("budget") is None


# What is written down


def test_after_how_many_deaths_an_entry_is_quarantined_is_written_down(rig: ResumeRig) -> None:
    """Of this session: what is judged later is judged by it."""
    rig.resume(kills=4)
    with rig.ledger() as ledger:
        assert ledger.jobs.run_facts().segments[-1].kills == 4


@pytest.mark.parametrize("is_trusted", [True, False])
def test_what_was_forged_is_judged_again_by_the_keys_that_are_trusted_now(
    rig: ResumeRig, *, is_trusted: bool
) -> None:
    """The key of its worker was not among those that the run knew."""
    private, public = keys.generate()
    earlier, other = (keys.generate()[1] for _ in range(2))
    began = rig.sent_at + timedelta(seconds=1)
    times = {"sent_at": rig.sent_at, "started_at": began, "finished_at": began}
    told = rig.receipt("a", "succeeded", **times, **NOTHING)
    signing.use(keys.read_signer(private.decode(), "key"))
    try:
        signed = signing.sign_receipt(told.model_dump(mode="json"), "x")
    finally:
        signing.forget()
    with rig.ledger() as ledger:
        require_signatures(ledger, earlier)
    rig.judge("a", "forged", Receipt.model_validate_json(json.dumps(signed)))
    rig.resume(["a"], receipt_keys=public if is_trusted else other)
    still = ("leave", f"forged{RISKY}")
    assert rig.decided() == {"a": ("keep", "passed") if is_trusted else still}


def test_what_was_withdrawn_and_is_there_was_not(rig: ResumeRig) -> None:
    """Any worker may run it; what is not there stays withdrawn."""
    with rig.ledger() as ledger:
        ledger.attempts.mark([rig.task_id("a"), rig.task_id("b")], "withdrawn")
    rig.judge("a", "revoked")
    rig.judge("b", "revoked")
    rig.queue("a")
    rig.resume(["a", "b"])
    with rig.ledger() as ledger:
        states = {(one.entry, one.attempt): one.state for one in ledger.attempts.all()}
    assert rig.decided()["a"] == QUEUED
    assert states[("a", 1)] == "sent"
    assert states[("b", 1)] == "withdrawn"
    assert "a" not in rig.statuses()


def test_only_what_was_never_sent_has_its_verdict_by_the_cancelling_itself(rig: ResumeRig) -> None:
    """What was sent and is nowhere has one before, whoever takes the command, and when."""
    with rig.ledger() as ledger:
        ledger.attempts.mark([rig.task_id("b")], "planned")
        ledger.commands.add("cancel", by="me", data={"entries": ["a", "b"]})
    rig.resume(["a", "b"])
    left = ("leave", "an operator has cancelled it")
    assert rig.decided() == {"a": left, "b": left}
    assert rig.statuses() == {"a": "lost"}


def test_a_session_that_is_refused_leaves_the_ledger_as_it_was(rig: ResumeRig) -> None:
    """As long as it does not count; another may follow the run then."""
    rig.end("a")
    made = rig.make()
    made.prepare(None)
    with pytest.raises(DispatchError):
        rig.make().prepare(None)
    made.abandon()
    assert rig.statuses() == {}
    with rig.ledger() as ledger:
        assert ledger.info.status == "stopped"
        assert len(list(ledger.attempts.all())) == 3
    rig.resume()
    assert rig.statuses() == {"a": "passed"}


@pytest.mark.parametrize("is_private", [True, False])
def test_a_session_that_counts_and_does_not_start_leaves_the_run_stopped(
    tmp_path: Path, *, is_private: bool
) -> None:
    """Another run of it could not be written down; it may be followed again."""
    with resume_rig(tmp_path, is_private=is_private) as rig:
        rig.queue("a")
        made = rig.resume(["a"])
        with rig.ledger() as ledger:
            assert ledger.info.status == "running"
        made.abandon()
        with rig.ledger() as ledger:
            assert ledger.info.status == ("stopped" if is_private else "detached")
            ledger.info.set_status("finished")
        made.abandon()
        with rig.ledger() as ledger:
            assert ledger.info.status == "finished"


@pytest.mark.parametrize("is_private", [True, False])
def test_a_resumed_run_is_made_of_its_ledger(tmp_path: Path, *, is_private: bool) -> None:
    """A stack of ours may hold jobs from the beginning."""
    with resume_rig(tmp_path, is_private=is_private) as rig:
        at, settings = address(is_private=is_private), RunSettings(folder=tmp_path, unsafe=True)
        run = resume_run(rig.manifest, rig.path, ["b"], at, settings)
        assert run.info.run == "20261124T150000-0123abcd"
        assert run.state.leaves_jobs == is_private
        strategy = run.strategy
        assert isinstance(strategy, Resume)
        state = strategy.state
        assert (state.manifest, state.files) == (rig.manifest, RunFiles(rig.path))
        assert (state.address, state.settings) == (at, settings)
        rig.resumed = strategy
        strategy.prepare(None)
        strategy.take_effect()
        assert [one.entry.id for one in rig.to_send()] == ["b"]
    with pytest.raises(LedgerError):
        resume_run(rig.manifest, tmp_path / "none.sqlite", ["b"], at, settings)


@pytest.mark.parametrize("by", [-3600.0, 3600.0], ids=["behind", "ahead"])
def test_a_timeout_counts_from_when_the_start_was_reported(tmp_path: Path, by: float) -> None:
    """Whatever the clock of the worker's machine says."""
    with resume_rig(tmp_path, entry("a", timeout=100.0)) as rig:
        with rig.ledger() as ledger:
            began = rig.world.clock.utc_now() + timedelta(seconds=by)
            one = started(rig.task_id("a"), "x", began, 0, "w", "h", 1, redelivered=False)
            add_starts(ledger, [one])
        pending = rig.resume().state.pending
        now = rig.world.clock.monotonic()
        assert list(pending.overdue(now)) == []
        assert list(pending.overdue(now + 100 + TIMEOUT_GRACE + 1)) == [rig.task_id("a")]


@pytest.mark.parametrize(
    ("is_private", "is_heard", "status"),
    [(True, False, "stopped"), (False, True, "stopped"), (False, False, "detached")],
)
def test_what_workers_of_others_do_not_hear_to_be_revoked_goes_on(
    rig: ResumeRig, *, is_private: bool, is_heard: bool, status: str
) -> None:
    """Else the next run of the manifest would send all of it beside them; our own end with us."""
    rig.queue("a")
    made = rig.make()
    made.state.signals.stop.set()
    made.state.settings = replace(made.state.settings, on_stop="revoke")
    made.state.address = address(is_private=is_private)
    engine = MagicMock()
    with rig.ledger() as ledger:
        seen: list[str] = []

        def wind_down() -> bool:
            seen.append(ledger.info.status)
            return is_heard

        engine.wind_down = wind_down
        made._close_dispatch(engine, ledger)
        assert (seen, ledger.info.status) == (["stopped" if is_private else "detached"], status)


@pytest.mark.parametrize(
    ("status", "ends"),
    [
        ("failed", "stopped"),
        ("timed_out", "detached"),
        ("unknown", "detached"),
        (None, "detached"),
    ],
)
@pytest.mark.parametrize("is_stopped", [False, True])
def test_workers_of_others_do_not_go_on_with_a_run_of_which_nothing_is_under_way(
    rig: ResumeRig, status: VerdictStatus | None, ends: str, *, is_stopped: bool
) -> None:
    """What is left was never sent, as of one that was drained."""
    rig.queue("a")
    made = rig.make()
    if is_stopped:
        made.state.signals.stop.set()
    made.state.address = address(is_private=False)
    with rig.ledger() as ledger:
        ends_of = {name: status if name == "a" else "failed" for name in rig.manifest.ids}
        ledger.verdicts.record([(verdict(name, one), None) for name, one in ends_of.items() if one])
        ledger.attempts.plan([("t-new", "new", 1, 9)])
        made._close_dispatch(MagicMock(pending=(), given_up=0), ledger)
        assert ledger.info.status == ends


@pytest.mark.parametrize("status", ["unknown", "timed_out", "cancelled", "withdrawn"])
def test_a_run_whose_entries_all_have_verdicts_is_finished(
    rig: ResumeRig, status: VerdictStatus
) -> None:
    """On a stack of others, too, where nothing was given up in this session."""
    rig.queue("a")
    made = rig.make()
    made.state.address = address(is_private=False)
    with rig.ledger() as ledger:
        ledger.verdicts.record([(verdict(name, status), None) for name in rig.manifest.ids])
        made._close_dispatch(MagicMock(pending=(), given_up=0), ledger)
        assert ledger.info.status == "finished"
