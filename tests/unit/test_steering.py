"""What an operator asks of a run that goes on, in the simulated world."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.errors import LedgerError, StackError
from pytest_manifest.ledger import Ledger
from pytest_manifest.ledger.commands import Answer
from pytest_manifest.run import kept_commands
from pytest_manifest.run.invariants import corrections, losses, repetitions, sendings
from pytest_manifest.run.kept_limits import with_limits_set
from pytest_manifest.run.repeating import places
from pytest_manifest.run.settings import Rate, RunSettings
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import Recalled
from pytest_manifest.schema.run_facts import Action, Segment, Steered, cancelled_by
from tests.unit.ledger_support import MOMENT
from tests.unit.resume_rig import entry as plain
from tests.unit.resume_rig import resume_rig
from tests.unit.run_rig import Plan, Rig, begun, first, in_turn, rig
from tests.unit.run_world import How

NAMES = ("a", "b", "c", "d")


def entry(name: str, **fields: object) -> Entry:
    known = {"id": name, "task": "t", "idempotent": False, "timeout": 30.0}
    return Entry.model_validate({**known, **fields})


def ended(made: Rig, how: How = "succeeded") -> None:
    made.world.end(first(made), begun(made), how)
    made.step(2)


def asked(made: Rig, action: Action, **data: JsonValue) -> Answer:
    """Give the command, as another process does, and let the engine go round."""
    number = made.ledger.commands.add(action, "ada@box", "why not", data)
    made.step()
    answer = made.ledger.commands.answer_of(number)
    assert answer is not None
    return answer


def published(made: Rig) -> set[str]:
    rows = made.ledger.attempts.all()
    return {row.entry for row in rows if made.world.published[row.task_id]}


def consistent(made: Rig) -> None:
    """The record holds, whoever steered it."""
    ledger, manifest = made.ledger, made.manifest
    found = [*sendings(ledger), *repetitions(ledger, manifest), *losses(ledger)]
    assert not [*found, *corrections(ledger)]


# Sending


def test_what_is_paused_sends_nothing_new_until_it_is_resumed() -> None:
    with rig(Plan(tuple(map(entry, NAMES)), window=2)) as made:
        made.step()
        answer = asked(made, "pause")
        assert (answer.applied, answer.changed, answer.data) == (True, True, {"in_flight": 2})
        assert "deadline goes on" in answer.message
        ended(made)
        ended(made)
        assert published(made) == {"a", "b"}
        assert any("nothing is in flight" in one for one in made.engine._context.live_warnings)
        again = asked(made, "pause")
        assert not again.changed
        assert "sending is paused already, by ada@box at " in again.message
        assert asked(made, "resume").changed
        made.step()
        assert published(made) == set(NAMES)
        assert not asked(made, "resume").changed
        made.finish()
        made.check()
        steered = made.ledger.jobs.run_facts().steered
        assert [(one.action, one.by, one.reason, one.changed) for one in steered] == [
            ("pause", "ada@box", "why not", True),
            ("pause", "ada@box", "why not", False),
            ("resume", "ada@box", "why not", True),
            ("resume", "ada@box", "why not", False),
        ]


def test_a_dry_run_says_what_would_happen_and_changes_nothing() -> None:
    with rig(Plan(tuple(map(entry, NAMES)), window=2)) as made:
        made.step()

        def would(action: Action, **data: JsonValue) -> tuple[bool, bool, str]:
            answer = asked(made, action, dry_run=True, **data)
            return answer.applied, answer.changed, answer.message

        going_on = "nothing new would be sent; 2 jobs in flight would go on"
        assert would("pause") == (True, False, going_on)
        assert would("drain") == (True, False, "the run would end when 2 jobs in flight have ended")
        assert would("resume") == (True, False, "sending is not paused")
        ends = "the run would end, as by Ctrl-C, with 2 jobs in flight"
        assert would("stop") == (True, False, ends)
        assert would("set", deadline="10m", window="9") == (
            *(True, False),
            "it would be deadline = 10 min 00 s, window = 9",
        )
        applied, _, said = would("set", window="0")
        assert (applied, said) == (False, "window=0: write it like window=200")
        applied, _, said = would("set")
        assert (applied, said.startswith("name what is to be set")) == (False, True)
        assert not made.ledger.jobs.run_facts().steered
        assert not made.signals.stop.is_set()
        asked(made, "pause")
        assert would("pause")[2].startswith("sending is paused already, by ada@box")
        assert would("resume")[2] == "sending would go on"
        asked(made, "resume")
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}


def test_a_resumed_run_says_what_holds_it_back_still() -> None:
    answers: list[object] = [("stop", "db failover")]
    plan = Plan(tuple(map(entry, NAMES)), health=lambda: answers[0])
    with in_turn(), rig(plan) as made:
        made.step()
        asked(made, "pause")
        held = "manifest_health says stop: db failover"
        assert asked(made, "resume").message == (
            f"sending is not paused, and is still held back: {held}"
        )
        answers[0] = "ok"
        made.finish()


def test_what_is_kept_for_a_resume_that_has_nothing_to_do_is_answered() -> None:
    with rig(Plan((entry("a"),))) as made:
        made.finish()
        path = made.ledger.path
        number = made.ledger.commands.add("requeue", "ada@box", "", {"entries": ["a"]})
        assert kept_commands.answer_passed(path) == 1
        answer = made.ledger.commands.answer_of(number)
        assert answer is not None
        assert (answer.applied, answer.message.partition(":")[0]) == (
            *(False, "every entry has passed"),
        )


def test_a_drained_run_ends_when_nothing_is_in_flight() -> None:
    with rig(Plan(tuple(map(entry, NAMES)), window=2)) as made:
        made.step()
        assert asked(made, "drain").data == {"in_flight": 2}
        ended(made)
        assert not made.signals.stop.is_set()
        ended(made)
        assert made.signals.stop.is_set()
        assert made.engine._context.state.settings.on_stop == "detach"
        assert made.kinds() == {"a": "passed", "b": "passed"}


@pytest.mark.parametrize(("how", "on_stop"), [("take-back", "revoke"), ("leave", "detach")])
def test_a_run_is_stopped_as_by_a_person(how: str, on_stop: str) -> None:
    with rig(Plan(tuple(map(entry, NAMES)), window=2)) as made:
        ends: list[str] = []
        made.signals.end_session = lambda: ends.append("session")
        made.step()
        assert asked(made, "stop", how=how).applied
        assert made.signals.stop.is_set()
        assert made.signals.interrupted.is_set()
        assert ends == ["session"]
        assert made.engine._context.state.settings.on_stop == on_stop


# Limits


def test_limits_of_a_run_are_changed_while_it_goes_on() -> None:
    tenants = tuple(entry(name, key={"tenant": "x"}) for name in NAMES)
    plan = Plan(tenants, window=1, key_limits={"tenant": 2}, max_failed=9, budget=5.0)
    with rig(plan) as made:
        made.step()
        answer = asked(made, "set", window="3")
        assert answer.data == {"window": 3}
        made.step()
        assert len(published(made)) == 2
        made.plan.key_limits.update({"tenant": 4})  # type: ignore[attr-defined]  # what the rig holds
        assert asked(made, "set", **{"limit.tenant": "4", "max-failed": "50%"}).applied
        made.step()
        assert len(published(made)) == 3
        assert str(made.schedule.max_failed) == "50%"
        assert asked(made, "set", budget="7.5").data == {"budget": 7.5}
        before = made.engine.time_left
        assert asked(made, "set", deadline="-1s").applied is False
        assert asked(made, "set", deadline="60").data == {"deadline": 60.0}
        assert made.engine.time_left <= 60 < before
        assert made.ledger.jobs.run_facts().deadline == 60


def test_rates_of_a_run_are_changed_while_it_goes_on() -> None:
    tenants = tuple(entry(name, key={"tenant": "x"}) for name in NAMES)
    rates = {"": Rate(1, "h"), "tenant": Rate(1, "h")}
    with rig(Plan(tenants, rates=rates)) as made:
        made.step(3)
        assert len(published(made)) == 1
        assert asked(made, "set", rate="900/s").data == {"rate": "900/s"}
        made.step(3)
        assert len(published(made)) == 1, "its tenant's is as it was"
        assert asked(made, "set", **{"rate": "tenant=x:900/s", "queue-depth": "2"}).applied
        made.step(3)
        assert len(published(made)) == 2, "its message waits, and one more may"
        assert asked(made, "set", **{"queue-depth": "99"}).applied
        made.step(9)
        assert len(published(made)) == len(NAMES)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("window", "0", "window=0: write it like window=200"),
        ("window", "many", "write it like window=200"),
        ("limit.user", "3", "the run has no limit of this key; it has: none"),
        ("rate", "fast", "rate=fast: write it like rate=200/s"),
        ("rate", "user:3/s", "rate=user:3/s: the run has no rate of this key; it has: none"),
        ("queue-depth", "0", "write it like queue-depth=5000"),
        ("max-failed", "200%", "write it like max-failed=2%"),
        ("budget", "30", "the run has none"),
        ("deadline", "soon", "write it like deadline=+2h"),
        ("deadline", "99d", "nothing could be judged after that"),
        ("speed", "9", "there is no such limit; there are: window, limit.KEY"),
    ],
)
def test_what_cannot_be_set_is_refused_and_changes_nothing(
    name: str, value: str, said: str
) -> None:
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        answer = asked(made, "set", **{"window": "2", name: value})
        assert not answer.applied
        assert said in answer.message
        made.step()
        assert published(made) == {"a"}
        assert not made.ledger.jobs.run_facts().steered


# Cancelling


def test_what_is_cancelled_is_taken_back_or_never_sent() -> None:
    entries = (*map(entry, NAMES), entry("e", after=["d"]))
    with rig(Plan(entries, window=3)) as made:
        made.step()
        running = begun(made)
        made.step()
        answer = asked(made, "cancel", entries=["a", "b", "d", "x"])
        assert answer.data == {
            "never_sent": 1,
            "taken_back": 1,
            "under_way": 1,
            "ended_before": 0,
            "cancelled_before": 0,
            "asked_for_since": 0,
            "unknown": ["x"],
            "entries": ["d", "a", "b"],
        }
        assert made.kinds() == {"b": "cancelled", "d": "cancelled", "e": "skipped"}
        assert "an operator cancelled it before it was sent" in made.sentence("d")
        assert "cancelled it before a worker had reported its start" in made.sentence("b")
        made.world.end(first(made), running, "succeeded")
        made.finish()
        assert made.kinds() == {
            "a": "passed",  # it ran, and is judged by that
            "b": "cancelled",
            "c": "passed",
            "d": "cancelled",
            "e": "skipped",
        }
        assert not made.world.of(made.task_id("b"))
        assert not made.world.published[made.task_id("d")]
        again = asked_at_the_end(made)
        assert again == {"a": "ended", "b": "dropped", "d": "dropped"}
        consistent(made)


@pytest.mark.parametrize("state", ["succeeded", "failed"])
def test_what_ends_as_it_is_cancelled_is_not_said_to_be_taken_back(state: How) -> None:
    """A worker had begun it, and its report was not read yet."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        running = begun(made)
        made.step()
        made.world.end(first(made), running, state)
        data = asked(made, "cancel", entries=["a", "b"]).data
        assert (data["taken_back"], data["under_way"], data["ended_before"]) == (1, 0, 1)
        assert made.kinds() == {
            "a": "passed" if state == "succeeded" else "failed",
            "b": "cancelled",
        }


def asked_at_the_end(made: Rig) -> dict[str, str]:
    return dict(places(made.ledger, ["a", "b", "d"]))


def test_a_cancelled_entry_is_not_sent_again_whatever_becomes_of_its_job() -> None:
    """Neither as another attempt nor as the message that got lost."""
    with rig(Plan((entry("a", idempotent=True, retries=3),))) as made:
        made.step()
        begun(made)
        made.step()
        assert asked(made, "cancel", entries=["a"]).data["under_way"] == 1
        made.world.kill(first(made), restart=0.2)
        made.finish()
        assert made.kind("a") == "crashed"
        assert len(made.ledger.attempts.of_entry("a")) == 1
        consistent(made)


def test_a_message_that_got_lost_is_not_published_again_once_it_is_cancelled() -> None:
    with rig(Plan((entry("a"),))) as made:
        made.world.uncertain.append(0)
        made.step()
        asked(made, "cancel", entries=["a"])
        made.finish()
        assert made.kind("a") == "cancelled"
        assert made.world.published == {made.task_id("a"): 1}


def test_a_cancelled_canary_does_not_hold_up_the_others() -> None:
    with rig(Plan(tuple(map(entry, NAMES)), canary=1)) as made:
        made.step()
        made.plan = Plan(made.plan.entries)  # the rig's own rule knows of no operator
        asked(made, "cancel", entries=["a"])
        made.finish()
        assert made.kinds() == {"a": "cancelled", "b": "passed", "c": "passed", "d": "passed"}


def test_workers_that_come_later_hear_of_it_too() -> None:
    """On a broker of others a message that was revoked may be handed to one that knows nothing."""
    with rig(Plan((entry("a"), entry("b")), owned=False)) as made:
        made.step()
        asked(made, "cancel", entries=["b"])
        assert made.kind("b") == "cancelled"
        ended(made)
        made.world.kill(first(made), restart=0.2)
        made.finish()
        assert not made.world.of(made.task_id("b"))
        consistent(made)


# Sending again


def test_a_failed_entry_is_sent_again_and_its_correction_is_told() -> None:
    with rig(Plan((entry("a", idempotent=True), entry("b"), entry("c")))) as made:
        made.step()
        ended(made, "failed")
        assert made.kind("a") == "failed"
        made.told.clear()  # the rig knows of no operator
        answer = asked(made, "requeue", entries=["a", "b"])
        assert answer.data == {
            "entries": ["a"],
            "left": {"b": "it has no verdict yet, as it is waiting"},
        }
        made.finish()
        assert made.kinds() == {"a": "passed", "b": "passed", "c": "passed"}
        assert [(one.before, one.verdict.verdict) for one in made.engine.corrections] == [
            ("failed", "passed")
        ]
        rows = made.ledger.attempts.of_entry("a")
        assert [row.attempt for row in rows] == [1, 2]
        loaded = made.ledger.jobs.of_entry("a")
        assert [one.own.job.why for one in loaded] == ["first", "requeue"]
        consistent(made)


def test_what_may_have_run_is_sent_again_only_where_that_is_asked_for() -> None:
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        ended(made, "failed")
        refused = asked(made, "requeue", entries=["a"])
        assert not refused.applied
        assert refused.data["left"] == {"a": "it may have run and is not idempotent"}
        assert asked(made, "requeue", entries=["a"], unsafe=True).data["entries"] == ["a"]
        assert made.ledger.info.sent_on_request() == {made.task_id("a", 2)}
        assert not asked(made, "requeue", entries=["a"], unsafe=True).applied
        consistent(made)


def test_what_the_broker_gives_back_one_day_is_not_sent_beside_it() -> None:
    """A worker has died with a message that it had not acknowledged, and nobody may move it."""
    late = entry("a", idempotent=True, meta={"late": True})
    with rig(Plan((late, entry("b"), entry("c")), owned=False, window=3)) as made:
        made.step()
        made.world.take(first(made))
        made.world.begin(first(made))
        made.step()
        made.world.kill(first(made), restart=1.0)
        made.run(10)
        assert made.kind("a") == "crashed"
        assert made.world.has(made.task_id("a", 1))
        refused = asked(made, "requeue", entries=["a"], unsafe=True)
        assert refused.data["left"] == {"a": "its job may still be queued or running"}
        made.world.unacked.clear()
        made.told.clear()
        assert asked(made, "requeue", entries=["a"]).data["entries"] == ["a"]
        consistent(made)


def test_a_cancelled_entry_is_sent_as_the_same_attempt_where_it_was_not_sent_yet() -> None:
    with rig(Plan((entry("a"), entry("b", after=["c"]), entry("c")), window=1)) as made:
        made.step()
        asked(made, "cancel", entries=["c"])
        assert made.kinds() == {"b": "skipped", "c": "cancelled"}
        made.told.clear()
        blocked = asked(made, "requeue", entries=["b"])
        assert blocked.data["left"] == {"b": "it waits for 'c', which has not passed"}
        assert asked(made, "requeue", entries=["b", "c"]).data["entries"] == ["b", "c"]
        made.finish()
        assert made.kinds() == {"a": "passed", "b": "passed", "c": "passed"}
        assert made.order == ["a", "c", "b"]
        assert all(row.attempt == 1 for row in made.ledger.attempts.all())
        consistent(made)


def test_a_ledger_that_keeps_nothing_ends_the_run_and_is_no_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was read with it would be taken out of the stream, and be nowhere."""
    with rig(Plan((entry("a"),))) as made:
        made.step()
        made.ledger.commands.add("cancel", "ada@box", "", {"entries": ["a"]})
        monkeypatch.setattr(made.engine, "cancel", full)
        with pytest.raises(LedgerError, match="disk is full"):
            made.step()


def full(*_: object, **__: object) -> None:
    raise LedgerError("the disk is full")


@pytest.mark.parametrize("by", ["stop", "deadline"])
def test_what_is_out_of_its_queue_is_not_withdrawn_while_reports_are_unread(by: str) -> None:
    """The message was there twice, and its other copy has run."""
    with rig(Plan((entry("a", deadline=20.0 if by == "deadline" else None),))) as made:
        made.step()
        made.world.queue.append(made.world.queue[0])
        made.world.store_down = made.world.clock.now + 40.0
        made.world.end(first(made), begun(made), "succeeded")
        if by == "deadline":
            made.run(21)
        else:
            made.engine.wind_down()
        assert not made.world.queue
        loaded = made.ledger.jobs.of_entry("a")[-1]
        assert "withdrawn" not in [one.stage for one in loaded.own.each(Recalled)]
        assert made.kinds() in ({}, {"a": "timed_out"})


def test_what_nobody_heard_to_be_revoked_is_not_withdrawn() -> None:
    """The broker is away in that moment: a worker may run it all the same, once it is back."""
    with rig(Plan((entry("a"),))) as made:
        made.step()
        made.world.take(first(made))  # out of the queue it would be certain
        revoked = made.publisher.revoke
        made.publisher.revoke = away  # type: ignore[method-assign]  # in that moment alone
        assert made.engine.wind_down() is False
        assert made.kinds() == {}
        consistent(made)
        made.publisher.revoke = revoked  # type: ignore[method-assign]  # it is back
        assert made.engine.wind_down() is True
        assert made.kinds() == {"a": "withdrawn"}


def test_what_ended_while_it_could_not_be_revoked_is_over() -> None:
    """It is nothing that workers go on with."""
    with rig(Plan((entry("a"),))) as made:
        made.step()
        made.world.take(first(made))
        delivery = made.world.begin(first(made))
        assert delivery is not None
        made.publisher.revoke = away  # type: ignore[method-assign]  # for good
        made.world.end(first(made), delivery, "succeeded")
        assert made.engine.wind_down() is True
        assert made.kinds() == {"a": "passed"}


def away(*_: object, **__: object) -> None:
    raise StackError("the broker cannot be reached")


def test_whose_revocation_it_is_is_written_before_it_is_sent() -> None:
    """Else, killed in between, the next session takes it for somebody's."""
    with rig(Plan((entry("a"), entry("b")), owned=False)) as made:
        made.step()
        known: list[str] = []

        def revoke(task_ids: Sequence[str], terminate: bool = False) -> None:
            with Ledger.open(made.ledger.path) as ledger:
                known.extend(one.job for one in ledger.facts.of_kind(Recalled))
            assert not terminate
            assert set(task_ids) <= set(known)

        made.publisher.revoke = revoke  # type: ignore[method-assign]  # looks at the moment
        asked(made, "cancel", entries=["b"])
        assert set(known) == {made.task_id("b")}


def test_what_may_still_be_in_a_queue_is_not_sent_beside_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From RabbitMQ no message can be taken: what was cancelled there is under way until a worker
    has dropped it, as one that starts later may run it."""
    with rig(Plan((entry("a"), entry("b", idempotent=True)), owned=False)) as made:
        monkeypatch.setattr(made.locator, "withdraw", lambda _task_ids: [])
        made.step()
        answer = asked(made, "cancel", entries=["b"])
        assert (answer.data["taken_back"], answer.data["under_way"]) == (0, 1)
        assert made.kind("b") is None
        left = asked(made, "requeue", entries=["b"]).data["left"]
        assert left == {"b": "it has no verdict yet, as it is waiting"}
        made.world.kill(first(made), restart=0.0)  # the next one knows of no revocation
        made.finish()
        assert len(made.ledger.attempts.of_entry("b")) == 1
        runs = made.world.of(made.task_id("b"))
        assert made.kind("b") == ("passed" if runs else "cancelled"), "it is said which"
        consistent(made)


def test_a_message_that_waits_on_a_redis_of_others_is_taken_out() -> None:
    """Nobody can run it then, whoever starts later, also while no worker lives."""
    with rig(Plan((entry("a"), entry("b", idempotent=True)), owned=False)) as made:
        made.step()
        made.world.kill(first(made), restart=None)
        answer = asked(made, "cancel", entries=["b"])
        assert (answer.data["taken_back"], answer.data["under_way"]) == (1, 0)
        assert made.kind("b") == "cancelled"
        assert not made.world.has(made.task_id("b"))
        made.told.clear()
        left = asked(made, "requeue", entries=["b"]).data["left"]
        assert left == {"b": "its job may still be queued or running"}, "nobody can be asked"
        made.world.start(first(made))
        assert asked(made, "requeue", entries=["b"]).data["entries"] == ["b"]
        made.finish()
        assert made.kind("b") == "passed"
        assert len(made.world.of(made.task_id("b"))) == 0, "the first attempt never ran"
        consistent(made)


def test_what_has_run_unheard_is_not_sent_beside_itself() -> None:
    """Its report waits in the store while the looks show the job to be nowhere."""
    with rig(Plan((entry("a"), entry("b", deadline=5.0)), owned=False)) as made:
        made.step()
        begun(made)
        made.run(10.0)
        assert made.kind("b") == "timed_out"
        worker = made.world.workers["w2@box"]
        made.world.take(worker)
        delivery = made.world.begin(worker)
        assert delivery is not None
        made.world.end(worker, delivery, "succeeded")
        made.told.clear()
        answer = asked(made, "requeue", entries=["b"])
        assert not answer.applied
        assert len(made.ledger.attempts.of_entry("b")) == 1
        assert len(made.world.of(made.task_id("b"))) == 1


def test_nothing_is_sent_again_once_sending_is_over() -> None:
    entries = (entry("a", idempotent=True), entry("b"), entry("c"))
    with rig(Plan(entries, max_failed=0, window=2)) as made:
        made.step()
        ended(made, "failed")
        answer = asked(made, "requeue", entries=["a"])
        assert not answer.applied
        assert "nothing more is sent" in answer.message
        assert "more than --manifest-max-failed=0 allows" in answer.message


# What later sessions know of it


def segment(**fields: object) -> Segment:
    known: dict[str, object] = {"seq": 0, "at": MOMENT, "kills": 3, "lifetime": 60.0, **fields}
    return Segment(**known)  # type: ignore[arg-type]  # as the tests give them


def limits(**data: JsonValue) -> Steered:
    return Steered(seq=0, at=MOMENT, command=1, action="set", by="ada@box", data=data)


def test_a_resumed_run_begins_with_the_limits_that_were_set_last(tmp_path: Path) -> None:
    settings = RunSettings(tmp_path, window=9, key_limits={"tenant": 4}, rates={"": Rate(5)})
    given = segment(window=9, limits={"tenant": 4}, rates={"": "5/s"})
    some: dict[str, JsonValue] = {
        "window": 3,
        "limit.tenant": 2,
        "rate": "1/s",
        "max-failed": "5%",
        "budget": 7.5,
    }
    facts = [given, limits(window=2), limits(**some, deadline=60.0), given]
    found, held = with_limits_set(settings, facts)
    assert held == some, "a deadline is of one session"
    assert (found.window, found.key_limits) == (3, {"tenant": 2})
    assert found.rates == {"": Rate(1)}
    assert (str(found.max_failed), found.budget, found.queue_depth) == ("5%", 7.5, None)
    assert with_limits_set(settings, [given, given]) == (settings, {})


def test_what_a_session_is_given_anew_wins_over_what_was_set_before(tmp_path: Path) -> None:
    settings = RunSettings(tmp_path, window=50)
    facts = [segment(window=9), limits(**{"window": 3, "queue-depth": 8}), segment(window=50)]
    found, held = with_limits_set(settings, facts)
    assert held == {"queue-depth": 8}
    assert (found.window, found.queue_depth) == (50, 8)


def test_an_option_that_is_not_repeated_is_no_other_value(tmp_path: Path) -> None:
    """The command that goes on need not say again what the first one had said."""
    first = segment(window=100, max_failed="2%", limits={"tenant": 4})
    some: dict[str, JsonValue] = {"window": 20, "max-failed": "9%", "limit.tenant": 2}
    facts = [first, limits(**some), segment(window=10_000)]
    found, held = with_limits_set(RunSettings(tmp_path), facts)
    assert held == some
    assert (found.window, str(found.max_failed), found.key_limits) == (20, "9%", {"tenant": 2})


# A pytest that is killed between a command, its fact and its effect


def test_what_was_cancelled_by_a_session_that_was_killed_is_not_sent_by_the_next(
    tmp_path: Path,
) -> None:
    entries = [plain("a", idempotent=True), plain("b", idempotent=True)]
    with resume_rig(tmp_path, *entries) as made:
        with made.ledger() as ledger:  # both are out, and lost
            number = ledger.commands.add("cancel", "ada@box", "", {"entries": ["a"]})
        resumed = made.resume()
        assert [(one.entry, one.action) for one in resumed.state.decisions] == [
            ("a", "leave"),
            ("b", "send"),
        ]
        with made.ledger() as ledger:
            assert ledger.commands.answer_of(number) is None, "the engine will cancel it"


def test_what_was_asked_for_while_no_pytest_lived_is_sent_by_the_next(tmp_path: Path) -> None:
    with resume_rig(tmp_path, *map(plain, "abc")) as made:
        for name in "abc":
            made.judge(name, "failed", made.receipt(name, "failed", started_at=made.sent_at))
        with made.ledger() as ledger:
            names: list[JsonValue] = ["a", "b"]
            given: dict[str, JsonValue] = {"entries": names, "unsafe": True}
            number = ledger.commands.add("requeue", "ada@box", "", given)
        resumed = made.resume(["a", "c"])
        actions = {one.entry: one.action for one in resumed.state.decisions}
        assert actions == {"a": "send", "c": "leave"}
        with made.ledger() as ledger:
            answer = ledger.commands.answer_of(number)
            assert answer is not None
            assert answer.data == {"entries": ["a"], "left": {}}
            rest = [(one.action, one.data["entries"]) for one in ledger.commands.open()]
            assert rest == [("requeue", ["b"])]
            assert len(ledger.info.sent_on_request()) == 1
            steered = ledger.jobs.run_facts().steered
            assert [(one.action, one.data) for one in steered] == [("requeue", {"entries": ["a"]})]


def test_commands_to_a_session_that_has_ended_are_answered_by_the_next(tmp_path: Path) -> None:
    """By its beginning: what is asked while it prepares is meant for it."""
    with resume_rig(tmp_path, *map(plain, "ab")) as made:
        with made.ledger() as ledger:
            number = ledger.commands.add("pause", "ada@box")
        resumed = made.make()
        resumed.prepare(None)
        resumed.take_effect()
        with made.ledger() as ledger:
            later = ledger.commands.add("pause", "ada@box")
            answer = ledger.commands.answer_of(number)
            assert answer is not None
            said = "the session that it was meant for has ended"
            assert (answer.applied, answer.message) == (False, said)
            assert [one.number for one in ledger.commands.open()] == [later]


def test_a_pause_that_comes_before_the_first_message_holds_that_too() -> None:
    with rig(Plan((entry("a"), entry("b")))) as made:
        number = made.ledger.commands.add("pause", "ada@box")
        made.engine.begin()
        made.step()
        answer = made.ledger.commands.answer_of(number)
        assert answer is not None
        assert answer.applied
        assert not published(made)


def test_what_was_cancelled_and_then_asked_for_again_is_sent(tmp_path: Path) -> None:
    """The session was killed before it had answered the first of the two."""
    with resume_rig(tmp_path, *(plain(name, idempotent=True) for name in "ab")) as made:
        names: dict[str, JsonValue] = {"entries": ["a", "b"]}
        with made.ledger() as ledger:
            first = ledger.commands.add("cancel", "ada@box", "", names)
            ledger.commands.add("requeue", "eve@box", "", {"entries": ["a"]})
            last = ledger.commands.add("cancel", "eve@box", "", {"entries": ["b"]})
        resumed = made.resume()
        actions = {one.entry: one.action for one in resumed.state.decisions}
        assert actions == {"a": "send", "b": "leave"}
        with made.ledger() as ledger:
            assert [one.number for one in ledger.commands.open()] == [first, last]
            steered = ledger.jobs.run_facts().steered
            assert cancelled_by(steered) == frozenset()


def test_a_cancel_of_before_leaves_what_was_asked_for_again_since() -> None:
    """The resume has carried out the later command first."""
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        number = made.ledger.commands.add("cancel", "ada@box", "", {"entries": ["a", "b"]})
        made.ledger.commands.add("requeue", "eve@box", "", {"entries": ["b"]})
        command = made.ledger.commands.open()[1]
        made.facts.add(None, kept_commands.steered_by(command, True, {"entries": ["b"]}))
        made.facts.write()
        made.ledger.commands.answer(command.number, Answer(True, True, "1 entry sent again"))
        made.step()
        answer = made.ledger.commands.answer_of(number)
        assert answer is not None
        assert answer.data["asked_for_since"] == 1
        assert made.kinds() == {"a": "cancelled"}
        made.finish()
        assert made.kinds() == {"a": "cancelled", "b": "passed"}
        consistent(made)


def test_what_was_cancelled_after_it_was_asked_for_again_is_not_sent(tmp_path: Path) -> None:
    """Nor is it asked for once more in the name of what this session does not look at."""
    with resume_rig(tmp_path, *(plain(name, idempotent=True) for name in "abc")) as made:
        with made.ledger() as ledger:
            number = ledger.commands.add("requeue", "ada@box", "", {"entries": ["a", "b", "c"]})
            ledger.commands.add("cancel", "ada@box", "", {"entries": ["b", "c"]})
        resumed = made.resume(["a", "c"])
        actions = {one.entry: one.action for one in resumed.state.decisions}
        assert actions == {"a": "send", "c": "leave"}
        with made.ledger() as ledger:
            answer = ledger.commands.answer_of(number)
            assert answer is not None
            since = "it was cancelled since"
            assert answer.data == {"entries": ["a"], "left": {"b": since, "c": since}}
            assert [one.action for one in ledger.commands.open()] == ["cancel"]


def test_the_fact_of_what_was_asked_for_again_is_written_once(tmp_path: Path) -> None:
    """The session was killed between the plan, which has it, and the answer."""
    with resume_rig(tmp_path, plain("a", idempotent=True)) as made:
        with made.ledger() as ledger:
            ledger.commands.add("requeue", "ada@box", "", {"entries": ["a"]})
            (command,) = ledger.commands.open()
            ledger.facts.append(
                [(None, kept_commands.steered_by(command, True, {"entries": ["a"]}))]
            )
        made.resume()
        with made.ledger() as ledger:
            assert len(ledger.jobs.run_facts().steered) == 1
            assert not ledger.commands.open()


def test_a_session_that_publishes_nothing_leaves_to_the_next_what_it_could_not_revoke() -> None:
    """As an audit that waits: the message would be in its queue all the same."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        number = made.ledger.commands.add("cancel", "ada@box", "", {"entries": ["b"]})
        made.engine._sender = None
        made.step()
        assert made.ledger.commands.answer_of(number) is None
        assert made.kind("b") is None
        refused = asked(made, "pause")
        assert not refused.applied


def test_a_message_that_is_lined_up_once_more_is_cancelled() -> None:
    """It got lost on its way, and waits for its turn."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        job = made.engine.pending.by_task_id[made.task_id("b")]
        made.world.queue.clear()
        made.engine.pending.complete(job.task_id)
        made.ledger.attempts.mark([job.task_id], "uncertain")
        made.schedule.put_back([job.attempt])
        assert asked(made, "cancel", entries=["b"]).data["never_sent"] == 1
        made.step(2)
        assert made.world.published[job.task_id] == 1
        assert made.kind("b") == "cancelled"


def test_what_has_failed_and_is_cancelled_is_left_by_every_resume() -> None:
    with rig(Plan((entry("a", idempotent=True), entry("b")))) as made:
        made.step()
        ended(made, "failed")
        answer = asked(made, "cancel", entries=["a", "b"])
        assert (answer.data["ended_before"], answer.data["entries"]) == (1, ["b", "a"])
        assert made.kind("a") == "failed"
        assert kept_commands.asked_of(made.ledger)[0] == {"a", "b"}


@pytest.mark.parametrize("chain", [("c", "b"), ("b", "c")])
def test_what_waits_for_an_entry_that_is_not_sent_again_is_not_either(
    chain: tuple[str, str],
) -> None:
    """It would wait until the run's deadline."""
    entries = (entry("a"), entry("b", after=["a"]), entry("c", after=["b"]), entry("d"))
    with rig(Plan(entries, window=1)) as made:
        made.step()
        ended(made, "failed")
        assert made.kinds() == {"a": "failed", "b": "skipped", "c": "skipped"}
        answer = asked(made, "requeue", entries=["a", *chain])
        assert answer.data["left"] == {
            "a": "it may have run and is not idempotent",
            "b": "it waits for 'a', which has not passed",
            "c": "it waits for 'b', which has not passed",
        }
        made.finish()
        assert made.kind("d") == "passed"


def test_what_waits_for_an_entry_that_the_session_does_not_send_is_left() -> None:
    """As one that was not selected."""
    with rig(Plan((entry("a"), entry("b", after=["x"])))) as made:
        made.step()
        assert made.kind("b") == "skipped"
        answer = asked(made, "requeue", entries=["b"])
        assert answer.data["left"] == {"b": "it waits for 'x', which has not passed"}


def test_an_entry_that_was_skipped_is_sent_once_the_one_that_it_waits_for_is_sent_again() -> None:
    entries = (entry("a", idempotent=True), entry("b", after=["a"]), entry("c"))
    with rig(Plan(entries, window=1)) as made:
        made.step()
        ended(made, "failed")
        made.told.clear()
        assert asked(made, "requeue", entries=["a"]).data["entries"] == ["a"]
        assert made.kind("b") == "skipped"
        assert asked(made, "requeue", entries=["b"]).data["entries"] == ["b"]
        made.finish()
        assert made.kinds() == dict.fromkeys("abc", "passed")
        consistent(made)


def test_nothing_is_sent_once_the_run_was_stopped() -> None:
    with rig(Plan(tuple(map(entry, NAMES)))) as made:
        asked(made, "stop", how="leave")
        assert not published(made)


def test_a_reason_shows_no_secret_and_no_line_of_its_own() -> None:
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        given = "password=hunter2\n\x1b[31mred"
        made.ledger.commands.add("pause", "ada\n@box", given)
        made.step()
        (fact,) = made.ledger.jobs.run_facts().steered
        shown = [fact.reason, *made.engine._context.live_warnings]
        assert not any("hunter2" in one or "\n" in one or "\x1b" in one for one in shown)
        assert fact.by == "ada @box"


def test_a_command_of_another_version_harms_no_run() -> None:
    with rig(Plan((entry("a"),))) as made:
        with made.ledger._db.writing() as db:
            db.execute(
                "INSERT INTO commands (at, by, action, reason, data) VALUES (?, ?, ?, ?, ?)",
                (0, "", "hop", "", "{}"),
            )
        made.step()
        assert published(made) == {"a"}


def test_two_operators_are_answered_in_turn() -> None:
    """Each sees what the other has done before."""
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        with Ledger.open(made.ledger.path, write=True) as other:
            numbers = [
                other.commands.add("cancel", "eve@box", "", {"entries": ["b"]}),
                made.ledger.commands.add("cancel", "ada@box", "", {"entries": ["b"]}),
                other.commands.add("requeue", "eve@box", "", {"entries": ["b"]}),
            ]
        made.step()
        answers = [made.ledger.commands.answer_of(one) for one in numbers]
        assert [one.changed for one in answers if one is not None] == [True, False, True]
        made.told.clear()
        made.finish()
        assert made.kinds() == {"a": "passed", "b": "passed"}
        consistent(made)


def test_a_command_whose_fact_is_there_is_carried_out_once_more_and_told_once() -> None:
    """The session was killed between the fact and the answer."""
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        number = made.ledger.commands.add("cancel", "ada@box", "", {"entries": ["b"]})
        command = made.ledger.commands.open()[0]
        made.engine._steering._note(command, data={"entries": ["b"]})
        made.facts.write()
        assert made.kind("b") is None
        made.step()
        assert made.kind("b") == "cancelled"
        assert made.ledger.commands.answer_of(number) is not None
        assert len(made.ledger.jobs.run_facts().steered) == 1
        made.finish()
        consistent(made)
