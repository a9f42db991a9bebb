"""What the engine does in doubt, where the model of tests/model has found it too sure."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import pytest

from pytest_manifest.errors import DispatchError, StackError
from pytest_manifest.ledger import (
    Ledger,
)
from pytest_manifest.run.connections import add_nodes
from pytest_manifest.run.fact_log import note_emptied
from pytest_manifest.run.missing import why_starts_may_lack
from pytest_manifest.run.resume_rules import EntryState, decide
from pytest_manifest.schema.run_facts import NodeFact, RunOver, StoreFact
from tests.reports import EMPTIED, GAVE_UP, node, note
from tests.unit.ledger_support import INFO
from tests.unit.run_fakes import FakeStream
from tests.unit.run_rig import Plan, Rig, begun, first, rig
from tests.unit.test_run_engine import NOTHING_ARRIVES, ended, entry
from tests.unit.test_run_resume import IDEMPOTENT, ONCE, row


def search_now(made: Rig) -> None:
    """Have the engine look for its jobs with its next step."""
    search = made.engine._search
    assert search is not None
    search.schedule(made.world.clock.now)


def test_a_job_that_was_sent_less_than_a_gap_ago_is_in_no_first_look() -> None:
    """A search that nothing is known of yet finds nothing missing."""
    with rig(Plan((entry(),))) as made:
        made.world.uncertain.append(NOTHING_ARRIVES)
        made.step()
        search_now(made)
        made.run(1.6)
        assert made.world.published == {made.task_id("a"): 1}
        made.finish()
        made.check()
        assert made.world.published == {made.task_id("a"): 2}


def test_a_deadline_counts_from_the_first_try() -> None:
    """Also where the broker took the message only later, and no worker has taken it since."""
    with rig(Plan((entry(deadline=12.0),))) as made:
        made.world.broker_down = made.world.clock.now + 8.0
        made.run(11)
        assert (made.kinds(), len(made.world.published)) == ({}, 1)
        made.run(2)
        assert made.kinds() == {"a": "timed_out"}


def test_nothing_is_sent_once_its_deadline_is_over() -> None:
    """The broker is back just as the time of what waits for it is over."""
    with rig(Plan((entry(deadline=5.0), entry("b")))) as made:
        made.world.broker_down = made.world.clock.now + 5.0
        made.step()
        made.world.clock.sleep(6.0)
        made.run(5)
        assert made.task_id("a") not in made.world.published
        made.finish()
        assert made.kinds() == {"a": "timed_out", "b": "passed"}


def test_a_store_that_cannot_be_asked_is_no_proof() -> None:
    """It may have been emptied: nothing is called lost before it has answered."""
    with rig(Plan((entry(),))) as made:
        made.step()
        ended(made)
        made.world.flush(everything=False)
        away = StackError("the result store cannot be reached")
        with mock.patch.object(type(made.collector), "is_intact", side_effect=away):
            made.run(20)
            assert made.kinds() == {}
        made.finish()
        made.check()
        assert made.kinds() == {"a": "unknown"}


@pytest.mark.parametrize("has_left", [False, True])
def test_a_stock_workers_next_try_in_an_unknown_queue_is_waited_for(*, has_left: bool) -> None:
    """Its result says that it asked for a retry; who has gone since may have had that try."""
    with rig(Plan((entry(retries=1),), owned=False)) as made:
        add_nodes(made.ledger, made.world.workers, "stock")
        made.step()
        with mock.patch.object(made.world, "_append"):  # a stock one reports nothing
            made.world.end(first(made), begun(made), "retried")
        waiting = made.world.queue.popleft()
        if has_left:
            made.engine._context.departures.hear({"w3@box"}, made.world.clock.now)
        made.run(20)
        assert len(made.ledger.attempts.of_entry("a")) == 1 + has_left
        if not has_left:
            assert any("does not know" in one for one in made.engine._context.live_warnings)
            made.world.queue.append(waiting)
            made.finish()
            assert made.kinds() == {"a": "passed"}


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_repair_is_offered_only_where_it_puts_something_back(*, idempotent: bool) -> None:
    """A stock worker has died with a message, and nobody knows whether it had begun."""
    with rig(Plan((entry(idempotent=idempotent),), owned=False)) as made:
        add_nodes(made.ledger, made.world.workers, "stock")
        made.step()
        made.world.take(first(made))
        made.world.kill(first(made), restart=0.2)
        made.run(20)
        assert made.engine._context.signals.held_by_dead is idempotent
        said = [one for one in made.findings if "holds 1 job" in one]
        assert ["--manifest-repair" in one for one in said] == [idempotent]


def test_of_a_store_that_is_away_no_retry_is_said() -> None:
    """What is not found is neither lost nor known to wait elsewhere."""
    with rig(Plan((entry(retries=1),), owned=False)) as made:
        made.step()
        made.world.queue.clear()
        away = StackError("the result store cannot be reached")
        with mock.patch.object(made.engine._search, "retried", side_effect=away):
            made.run(20)
        assert made.kinds() == {}
        assert not any("does not know" in one for one in made.engine._context.live_warnings)
        made.run(40)
        assert len(made.ledger.attempts.of_entry("a")) == 2


@pytest.mark.parametrize("idempotent", [False, True])
def test_an_orphan_is_not_put_back_by_the_word_of_an_emptied_store(*, idempotent: bool) -> None:
    """Its start may be gone with the store: only what may run twice runs again."""
    with rig(Plan((entry(late=True, idempotent=idempotent),))) as made:
        made.step()
        begun(made)
        made.world.flush(everything=False)
        made.world.kill(first(made), restart=0.2)
        made.run(20)
        ran = len(made.world.executions)
        if idempotent:
            assert made.locator.restored == [made.task_id("a")]
        else:
            assert (made.locator.restored, ran) == ([], 1)
            assert made.locator.discarded == [made.task_id("a")]
            assert made.kinds() == {"a": "unknown"}


def test_a_store_that_was_emptied_and_marked_again_knows_no_more_than_before() -> None:
    """The receipt is gone for good: that the store is whole by now proves nothing of the job."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        made.world.end(first(made), delivery, "succeeded")
        made.world.flush(everything=False)
        note_emptied(made.ledger)
        made.world.began_stream = True  # as a resumed run has it
        made.run(20)
        assert made.kinds() == {"a": "unknown"}
        made.finish()
        made.check()


def test_what_a_dead_worker_had_begun_may_have_ended_before_the_store_was_emptied() -> None:
    """It had the message still, but a worker acknowledges after it has stored the result."""
    with rig(Plan((entry(late=True),))) as made:
        made.step()
        begun(made)
        made.step()
        made.world.flush(everything=False)
        made.world.kill(first(made), restart=0.2)
        made.run(20)
        assert made.locator.discarded == [made.task_id("a")]
        assert made.kinds() == {"a": "unknown"}
        made.finish()
        made.check()


def test_what_was_turned_away_is_left_while_its_message_is_there_twice() -> None:
    """One worker has turned it away, and the broker may give it to another one."""
    queued = EntryState(row(), status="revoked", location="queued", turned_away=True)
    for one in (ONCE, IDEMPOTENT):
        decision = decide(one, queued, unsafe=False)
        assert (decision.action, decision.unsafe) == ("leave", True)
        assert decision.reason == "revoked, but its message is there twice"
        insisted = decide(one, queued, unsafe=True)
        assert (insisted.action, insisted.unsafe) == ("send", True)
    gone = EntryState(row(), status="revoked", location="missing", turned_away=True)
    for unsafe in (False, True):
        decision = decide(ONCE, gone, unsafe=unsafe)
        assert (decision.action, decision.unsafe) == ("send", False)


def test_a_start_and_an_end_that_come_late_together_are_one_correction() -> None:
    """Its message came twice, and what the second execution tells is read at once."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        delivery = ended(made)
        made.step()
        assert made.kinds() == {"a": "passed"}
        made.world.meddled.add(made.task_id("a"))
        made.world.queue.appendleft(delivery.message)
        ended(made)
        made.step(2)
        assert made.kinds() == {"a": "duplicated"}
        assert [c.before for c in made.engine.corrections] == ["passed"]
        made.finish()
        made.check()


def test_a_run_that_another_session_goes_on_with_sends_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That one has a copy of the ledger, and would send the same."""
    with rig(Plan((entry("a"), entry("b")), window=1)) as made:
        made.step()
        monkeypatch.setattr(FakeStream, "is_overtaken", True)
        ended(made)
        with pytest.raises(DispatchError, match="by a copy of its ledger"):
            made.engine.step()
        assert list(made.world.published) == [made.task_id("a")]


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ([EMPTIED], "the result store has lost what workers had reported"),
        ([node("", "nobody")], "no worker had answered when the jobs were sent"),
        ([node("w@h", "stock")], "of w@h it is not known when it begins a job"),
        (
            [node("q", "unserved")],
            "of any worker of queue 'q' it is not known when it begins a job",
        ),
        (
            [node("b@h", "silent"), node("a@h", "silent")],
            "of a@h, b@h nothing is known but the name",
        ),
        ([node("a@h", "silent"), node("a@h", "reports")], ""),
        ([GAVE_UP], "a session of this run gave up, and may have missed reports"),
    ],
)
def test_why_a_start_may_be_unreported_is_said_as_it_is(
    facts: list[NodeFact | StoreFact | RunOver], said: str, tmp_path: Path
) -> None:
    """Whoever reads that some worker reports no starts looks for it, where all of them do."""
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        assert why_starts_may_lack(ledger.jobs.run_facts()) == ""
        note(ledger, *facts)
        found = why_starts_may_lack(ledger.jobs.run_facts())
        assert found.startswith(said) if said else found == ""
