"""The engine's ways through single faults, one by one, in the simulated world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest
from pydantic import JsonValue

from pytest_manifest.errors import StackError
from pytest_manifest.ledger import OVER_BUDGET, Ledger
from pytest_manifest.manifest import Manifest
from pytest_manifest.manifest.jsonl import file_error
from pytest_manifest.results.backend_results import BackendResult
from pytest_manifest.run.connections import CRASH_LOOP
from pytest_manifest.run.inflight import TIMEOUT_GRACE
from pytest_manifest.run.schedule import REPEATS
from pytest_manifest.schema import Entry, VerdictStatus
from tests.reports import is_emptied
from tests.unit.run_rig import Plan, Rig, begun, first, note_stock, rig
from tests.unit.run_world import Delivery, How

NOTHING_ARRIVES = 0
ALL_ARRIVE = 0b1111100


def entry(
    name: str = "a",
    *,
    retries: int = 0,
    idempotent: bool = True,
    late: bool = False,
    poison: Literal["child", "worker"] | None = None,
    after: tuple[str, ...] = (),
    deadline: float | None = None,
) -> Entry:
    """An entry; without retries it is sent once, whatever else it is."""
    return Entry(
        id=name,
        task="t",
        idempotent=idempotent,
        retries=retries,
        timeout=30.0,
        deadline=deadline,
        after=list(after),
        meta={"late": late, "poison": poison},
    )


def ended(made: Rig) -> Delivery:
    """The next job, run by the first worker to its good end."""
    delivery = begun(made)
    made.world.end(first(made), delivery, "succeeded")
    return delivery


def test_receipts_leave_their_stream_once_they_are_committed() -> None:
    """What is taken out is in the ledger for everybody; of what does not count yet nothing is."""
    with rig(Plan((entry(), entry("b")))) as made:
        seen: list[str | None] = []

        def trim() -> None:
            with Ledger.open(made.ledger.path) as reading:
                seen.append(reading.info.get_meta("stream_position"))

        made.collector.trim = trim  # type: ignore[method-assign]  # watched
        made.step()
        ended(made)
        made.step(3)
        assert seen
        assert None not in seen
        seen.clear()
        made.ledger.defer_commits()
        ended(made)
        made.engine.poll_once()
        assert made.ledger.verdicts.of_entry("b") is not None
        assert not seen


def test_what_a_newer_worker_tells_is_read_once() -> None:
    """A record of an unknown kind is taken out with all others: whoever goes on later must know
    that it was read, or the stream would look as if somebody had emptied it."""
    with rig(Plan((entry(),))) as made:
        made.step()
        begun(made)
        made.step(2)
        made.world.tell({"kind": "a newer worker's"})
        made.step(2)
        last = str(made.world.stream[-1].number)
        assert made.ledger.info.get_meta("stream_position") == last


# What is uncertain


def test_what_got_lost_on_its_way_is_published_again_as_the_same_attempt() -> None:
    """Nobody has ever had it, so it may be sent again whatever it is, and counts as one sending."""
    with rig(Plan((entry(),))) as made:
        made.world.uncertain.append(NOTHING_ARRIVES)
        made.step()
        assert made.world.published == {made.task_id("a"): 1}
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}
        assert made.world.published == {made.task_id("a"): 2}
        assert made.world.landed == {made.task_id("a"): 1}


def test_what_arrived_in_spite_of_the_error_is_not_published_again() -> None:
    """An uncertain message that is found in its queue is waited for."""
    with rig(Plan((entry(),))) as made:
        made.world.uncertain.append(ALL_ARRIVE)
        made.step()
        made.run(30)
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}
        assert made.world.published == {made.task_id("a"): 1}


def test_a_message_that_never_arrives_is_not_published_for_ever() -> None:
    """After some repeats the broker is not believed any more, and the entry is lost."""
    with rig(Plan((entry(),))) as made:
        made.world.uncertain.extend([NOTHING_ARRIVES] * (REPEATS + 2))
        made.run(300)
        assert made.kinds() == {"a": "lost"}
        assert made.world.published == {made.task_id("a"): 1 + REPEATS}


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_a_plain_worker_may_have_had_is_not_published_again(*, idempotent: bool) -> None:
    """The error may have come after the message had arrived, and its worker may have died with it:
    only where each says what it begins is nothing heard nothing begun."""
    with rig(Plan((entry(idempotent=idempotent),))) as made:
        note_stock(made.ledger, "plain@box")
        made.world.uncertain.append(NOTHING_ARRIVES)
        made.step()
        made.finish()
        assert made.kinds() == {"a": "passed" if idempotent else "unknown"}
        assert made.world.published == {made.task_id("a"): 2 if idempotent else 1}


def strange_worker(made: Rig) -> None:
    """One that says nothing of what it begins came after the dispatch, and is found only when it
    is asked who is there."""
    made.engine._context.record_unknown_workers = lambda: note_stock(made.ledger, "stock@box")


@pytest.mark.parametrize("idempotent", [False, True])
def test_what_a_worker_may_have_had_that_came_later_is_not_published_again(
    *, idempotent: bool
) -> None:
    """Nobody saw it before the dispatch."""
    with rig(Plan((entry(idempotent=idempotent),), owned=False)) as made:
        strange_worker(made)
        made.world.uncertain.append(NOTHING_ARRIVES)
        made.step()
        made.finish()
        assert made.kinds() == {"a": "passed" if idempotent else "unknown"}
        assert made.world.published == {made.task_id("a"): 2 if idempotent else 1}


@pytest.mark.parametrize(("idempotent", "unsafe"), [(False, False), (True, False), (False, True)])
def test_what_a_strange_worker_may_have_begun_is_not_put_back(
    *, idempotent: bool, unsafe: bool
) -> None:
    """--manifest-repair moves only what may run twice, and says what it leaves; unless one insists
    that all may."""
    plan = Plan((entry(idempotent=idempotent),), owned=False, repair=True, unsafe=unsafe)
    with rig(plan) as made:
        strange_worker(made)
        made.step()
        made.world.take(first(made))
        made.world.kill(first(made), restart=0.2)
        made.run(10)
        job = {made.task_id("a")}
        moved = idempotent or unsafe
        assert set(made.locator.restored) == (job if moved else set())
        assert made.engine.missing.not_requeued == (set() if moved else job)
        assert any("not put back" in one for one in made.findings) is not moved


def test_nothing_is_published_again_once_too_much_has_failed() -> None:
    """What is found to have got lost after the failure threshold stays unsent, and is lost."""
    with rig(Plan((entry("a"), entry("b")), max_failed=0)) as made:
        made.world.uncertain.append(0b00001)  # a is sent for certain, b never arrives
        made.step()
        delivery = begun(made)
        made.world.end(first(made), delivery, "failed")
        made.finish()
        made.check()
        assert made.kinds() == {"a": "failed", "b": "lost"}
        assert made.world.published[made.task_id("b")] == 1


# What a dead worker had


@pytest.mark.parametrize("is_told", [False, True], ids=["by itself", "told by its session"])
def test_what_our_own_broker_keeps_of_what_has_ended_is_removed_at_the_end(is_told: bool) -> None:
    """As with a full disk, where it refuses acknowledgements; not what another run has sent.

    A session may end, and tell its run so, as soon as the last verdict is there.
    """
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.world.end(first(made), delivery, "succeeded")
        made.world.unacked["refused"] = delivery.message
        other = replace(delivery.message.attempt, task_id="another's")
        made.world.unacked["of another"] = replace(delivery.message, attempt=other)
        if is_told:
            made.look()
            made.stop(by_a_person=False)
            made.engine.end()
        else:
            made.finish()
        assert [*made.world.unacked] == ["of another"]
        made.world.unacked.clear()


def test_what_a_silent_worker_holds_unended_is_left_at_the_end() -> None:
    """A resume of part of the run knows nothing of the rest: it may be run yet, by a resume."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.take(first(made))
        first(made).paused = True
        made.engine._drain()
        (row,) = made.ledger.attempts.all()
        assert [one.task_id for one in made.world.unacked.values()] == [row.task_id]


def test_an_orphan_that_no_worker_had_begun_is_put_back_into_its_queue() -> None:
    """What was only reserved when its worker died runs elsewhere, once, in its first attempt."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.take(first(made))
        made.world.kill(first(made), restart=0.2)
        made.run(10)
        assert made.locator.restored == [made.task_id("a")]
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}


def test_a_begun_orphan_is_taken_out_and_has_crashed() -> None:
    """A late-acked job that killed its worker would run again: it is discarded, and judged."""
    with rig(Plan((entry(late=True),))) as made:
        made.step()
        begun(made)
        made.step()
        made.world.kill(first(made), restart=0.2)
        made.run(10)
        assert made.locator.discarded == [made.task_id("a")]
        assert made.kinds() == {"a": "crashed"}
        assert "worker w1 ended (exit code -9)" in made.sentence("a")
        made.finish()
        made.check()


def test_an_orphan_on_a_broker_of_others_is_reported_and_left() -> None:
    """Without --manifest-repair nothing is moved there; the broker gives it back in the end."""
    with rig(Plan((entry(),), owned=False)) as made:
        made.step()
        made.world.take(first(made))
        made.world.kill(first(made), restart=0.2)
        made.run(40)
        assert made.locator.restored == []
        assert ["--manifest-repair" in finding for finding in made.findings] == [True]
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}


def test_a_crashed_idempotent_entry_is_sent_again_as_a_second_attempt() -> None:
    """The first attempt keeps its verdict in the ledger, and the second one says why it is."""
    with rig(Plan((entry(retries=1),))) as made:
        made.step()
        begun(made)
        made.step()
        made.world.kill(first(made), restart=0.2)
        made.finish()
        made.check()
        rows = made.ledger.attempts.of_entry("a")
        assert [(row.attempt, row.status, row.reason) for row in rows] == [
            (1, "crashed", None),
            (2, "passed", "crashed"),
        ]


@pytest.mark.parametrize("retries", [0, 1, 2])
def test_an_entry_that_crashes_each_time_is_sent_again_as_often_as_it_allows(retries: int) -> None:
    """The last attempt's verdict is the entry's, and no more follow."""
    with rig(Plan((entry(retries=retries, poison="child"),), kills=9)) as made:
        made.finish()
        made.check()
        assert made.kinds() == {"a": "crashed"}
        assert len(made.ledger.attempts.of_entry("a")) == 1 + retries


def test_a_crashed_entry_that_is_not_idempotent_is_not_sent_again() -> None:
    """It may have done half of its work: one attempt, and the verdict on it."""
    with rig(Plan((entry(retries=1, idempotent=False),))) as made:
        made.step()
        made.world.kill_child(first(made), begun(made))
        made.finish()
        made.check()
        assert made.kinds() == {"a": "crashed"}


@pytest.mark.parametrize("kills", [2, 3])
def test_a_job_that_kills_its_processes_is_quarantined_at_the_limit(kills: int) -> None:
    """Late-acked, it is given back again and again: revoked at the k-th death, and out."""
    with rig(Plan((entry(late=True, poison="child"), entry("b")), kills=kills)) as made:
        made.finish()
        made.check()
        assert made.kinds() == {"a": "quarantined", "b": "passed"}
        assert len(made.world.of(made.task_id("a"))) == kills + 1
        made.world.clock.sleep(60)
        assert not made.world.queue, "it goes on and on"


def test_attempts_count_as_deaths_too() -> None:
    """An entry with more retries than deaths allowed is quarantined in the k-th attempt."""
    with rig(Plan((entry(retries=5, poison="worker"),), kills=3)) as made:
        made.finish()
        made.check()
        assert made.kinds() == {"a": "quarantined"}
        kinds = [row.status for row in made.ledger.attempts.of_entry("a")]
        assert kinds == ["crashed", "crashed", "quarantined"]


# What is nowhere


def test_what_is_nowhere_in_two_looks_is_lost() -> None:
    """A message that vanished between queue and worker gets its verdict in bounded time."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.take(first(made), vanishes=True)
        made.run(15)
        assert made.kinds() == {"a": "lost"}
        made.finish()
        made.check()


def test_what_a_silent_worker_may_have_is_not_given_up() -> None:
    """A worker that does not answer may hold it: nothing is claimed, and nothing moved."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.take(first(made))
        first(made).paused = True
        made.run(45)
        assert (made.kinds(), made.locator.restored) == ({}, [])
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}


def test_one_look_alone_says_nothing() -> None:
    """Before a second look, a second later, no verdict is given."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.take(first(made), vanishes=True)
        made.run(5.2)
        assert made.kinds() == {}


def test_a_receipt_that_comes_with_the_second_look_counts() -> None:
    """The last thing before the verdict is to read what has come meanwhile."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        made.world.fates.append("delayed")
        made.world.end(first(made), delivery, "succeeded")
        receipt_due = made.world.clock.now + 7.0
        made.world.clock.sleep(5.0)
        made.step()  # the first look finds nothing
        made.world.clock.now = receipt_due - 0.1
        look = made.locator.snapshot

        def looks_while_the_receipt_comes(task_ids: frozenset[str]) -> object:
            seen = look(task_ids)
            made.world.clock.sleep(0.2)
            return seen

        made.locator.snapshot = looks_while_the_receipt_comes  # type: ignore[method-assign,assignment]  # the one method that the test replaces
        made.world.store_down = receipt_due  # what is read before the look is not there yet
        made.step()
        assert made.kinds() == {"a": "passed"}
        assert made.engine.corrections == []


def test_a_late_receipt_corrects_what_was_said_for_want_of_it() -> None:
    """The verdict changes while the run lasts, and the change is told."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        delivery = begun(made)
        made.step()
        made.world.fates.append("delayed")
        made.world.end(first(made), delivery, "succeeded")
        made.run(6.8)
        assert made.kinds() == {"a": "lost"}
        made.run(3)
        assert made.kinds() == {"a": "passed"}
        made.finish()
        made.check()
        (correction,) = made.engine.corrections
        assert (correction.before, correction.verdict.verdict) == ("lost", "passed")


def test_of_an_emptied_store_nothing_is_claimed() -> None:
    """Who knows what it held: unknown, noted in the ledger, and said in the summary."""
    with rig(Plan((entry(),))) as made:
        made.step()
        ended(made)
        made.world.flush(everything=False)
        made.finish()
        made.check()
        assert made.kinds() == {"a": "unknown"}
        assert is_emptied(made.ledger)
        assert ["was emptied" in finding for finding in made.findings] == [True]


# What comes twice, or lies


def test_a_second_start_after_the_end_is_a_duplicate() -> None:
    """However the second one will end: the job ran twice, so the entry has not passed."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        delivery = ended(made)
        made.step()
        assert made.kinds() == {"a": "passed"}
        made.world.meddled.add(made.task_id("a"))
        made.world.queue.appendleft(delivery.message)
        begun(made)
        made.step(2)
        assert made.kinds() == {"a": "duplicated"}
        assert [c.before for c in made.engine.corrections] == ["passed"]
        made.finish()
        made.check()


def test_a_retry_that_the_task_asks_for_is_no_second_execution() -> None:
    """Celery's own retries belong to the same execution."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.end(first(made), begun(made), "retried")
        made.step()
        ended(made)
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}
        assert len(made.world.of(made.task_id("a"))) == 2


def retried(made: Rig) -> None:
    """The first job's first try is over, and the next one waits."""
    made.step()
    made.world.end(first(made), begun(made), "retried")
    made.step(2)


def test_a_try_that_waits_is_neither_overdue_nor_lost() -> None:
    """However much longer than its timeout a task has Celery wait before the next try."""
    with rig(Plan((entry(),))) as made:
        retried(made)
        made.run(30 + 10 * TIMEOUT_GRACE)
        assert made.kinds() == {}
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}


@pytest.mark.parametrize("idempotent", [True, False])
def test_a_try_that_waits_with_a_worker_that_dies_is_put_back(*, idempotent: bool) -> None:
    """It has not begun, whatever became of the try before it: so nothing crashed."""
    with rig(Plan((entry(idempotent=idempotent),))) as made:
        retried(made)
        made.world.take(first(made))
        made.world.kill(first(made), restart=1.0)
        made.run(20)
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed"}
        assert len(made.world.of(made.task_id("a"))) == 2


def test_a_stop_takes_back_a_try_that_waits() -> None:
    """It is not waited for, as nothing runs; the verdict says that a try of it was run."""
    with rig(Plan((entry(),))) as made:
        retried(made)
        made.stop(by_a_person=True)
        before = made.world.clock.now
        made.engine.wind_down()
        assert made.world.clock.now - before < 10
        assert made.kinds() == {"a": "withdrawn"}
        assert "after a try of it" in made.sentence("a")
        # It is not as if nobody had begun it.
        assert [row.state for row in made.ledger.attempts.all()] == ["sent"]


def test_a_waiting_try_that_is_nowhere_is_lost() -> None:
    """Its message is gone; that a try of it has run is said."""
    with rig(Plan((entry(idempotent=False),))) as made:
        retried(made)
        made.world.queue.clear()
        made.run(60)
        assert made.kinds() == {"a": "lost"}
        assert "its next try is nowhere" in made.sentence("a")


@pytest.mark.parametrize(("fate", "kind"), [("doubled", "passed"), ("tampered", "forged")])
def test_a_receipt_counts_once_and_as_its_worker_made_it(
    fate: Literal["doubled", "tampered"], kind: str
) -> None:
    """The same again is no second execution; its digest does not agree with what was changed."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.fates.append(fate)
        ended(made)
        made.finish()
        made.check()
        assert made.kinds() == {"a": kind}
        assert made.engine.corrections == []


def test_receipts_that_changed_places_are_forged() -> None:
    """Each entry is given the other one's receipt: that is no end of it, and none comes."""
    with rig(Plan((entry("a"), entry("b"), entry("c")))) as made:
        made.step()
        made.world.results = {}
        made.world.fates.extend(["swapped", "swapped"])
        ended(made)
        ended(made)
        made.world.results = {}  # else that is what they came to
        made.finish()
        made.check()
        assert made.kinds() == {"a": "forged", "b": "forged", "c": "passed"}
        assert "another entry: 'b', not 'a'" in made.sentence("a")


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_revocation_is_unconfirmed_where_another_worker_runs_it(*, forgotten: bool) -> None:
    """A worker that only heard of the revocation stores it; what the job comes to counts."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        delivery = begun(made)
        if forgotten:
            made.world.flush(everything=False)
        made.step()
        made.publisher.revoke([made.task_id("a")])
        made.step(3)
        assert made.world.results[made.task_id("a")].state == "revoked"
        assert made.kinds() == {}
        made.world.end(first(made), delivery, "succeeded")
        made.step(2)
        assert made.kinds() == {"a": "passed"}


def test_a_job_that_runs_although_it_was_called_revoked_is_judged_by_its_receipt() -> None:
    """A paused worker has not heard of the revocation and begins the job when it goes on."""
    plan = Plan((entry("a"), entry("b"), entry("c")), max_failed=0, revoke_on_max_failed=True)
    with rig(plan) as made:
        made.step()
        second = made.world.workers["w2@box"]
        delivery = begun(made)  # a
        made.world.take(second)  # b
        second.paused = True
        made.world.take(first(made))  # c
        made.world.end(first(made), delivery, "failed")
        made.step(10)
        assert made.kinds() == {"a": "failed"}
        second.paused = False
        late = made.world.begin(second)
        assert late is not None
        made.world.end(second, late, "succeeded")
        made.world.begin(first(made))  # c, which this worker knows to be revoked
        made.step(2)
        made.look()
        assert made.kinds() == {"a": "failed", "b": "passed", "c": "revoked"}


def test_an_unconfirmed_end_that_counts_at_last_is_kept_like_a_receipt() -> None:
    """An audit would call the verdict one by a receipt that never arrived."""
    with rig(Plan((entry("a"),), max_failed=0)) as made:
        made.step()
        made.publisher.revoke([made.task_id("a")])
        made.step(3)
        made.world.queue.clear()
        made.run(30)
        assert made.kinds() == {"a": "revoked"}
        assert [one.source for _, one in made.ledger.events.receipts(made.task_id("a"))] == [
            "backend"
        ]


@pytest.mark.parametrize(("how", "kind"), [("succeeded", "passed"), ("failed", "failed")])
def test_an_end_that_a_task_stores_itself_is_unconfirmed(how: How, kind: VerdictStatus) -> None:
    """``update_state("SUCCESS")`` in the middle of the work: what its worker tells counts."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.world.results[made.task_id("a")] = BackendResult("succeeded")
        made.run(20)
        assert made.kinds() == {}
        made.world.end(first(made), delivery, how)
        made.step(2)
        assert made.kinds() == {"a": kind}


@pytest.mark.parametrize("whole_worker", [False, True])
def test_an_end_that_a_task_stores_itself_saves_no_job_whose_process_dies(
    *, whole_worker: bool
) -> None:
    """No receipt tells of such an end, and work may have been left undone."""
    with rig(Plan((entry(),))) as made:
        made.step()
        delivery = begun(made)
        made.world.results[made.task_id("a")] = BackendResult("succeeded")
        made.step(3)
        if whole_worker:
            made.world.kill(first(made), restart=1.0)
        else:
            made.world.kill_child(first(made), delivery)
        made.run(40)
        assert made.kinds() == {"a": "unknown" if whole_worker else "crashed"}


# The run as a whole


def test_a_worker_that_dies_again_and_again_before_any_job_ends_the_run() -> None:
    """One clear error: which worker, how often, with what exit code, and what to do."""
    with rig(Plan((entry(),))) as made:
        made.step()
        for _ in range(CRASH_LOOP - 1):
            made.world.kill(first(made), restart=0.2)
            made.run(1)
        made.world.kill(first(made), restart=0.2)
        with pytest.raises(
            StackError, match=rf"worker w1 ended {CRASH_LOOP} times .*--manifest-resume"
        ):
            made.run(1)


def test_a_worker_that_begins_jobs_is_in_no_crash_loop() -> None:
    """Deaths count only in a row, and a job that begins ends the row."""
    entries = tuple(entry(f"e{number}") for number in range(2 * CRASH_LOOP))
    with rig(Plan(entries)) as made:
        made.step()
        for _ in range(CRASH_LOOP + 2):
            begun(made)
            made.world.kill(first(made), restart=0.2)
            made.run(1)
        made.finish()
        made.check()


def test_messages_that_are_left_at_the_end_are_waited_for() -> None:
    """A doubled message that waits when every verdict is there still makes its entry red."""
    with rig(Plan((entry(),))) as made:
        made.step()
        made.world.meddled.add(made.task_id("a"))
        made.world.queue.append(made.world.queue[0])
        ended(made)
        made.world.later(1.0, lambda: begun(made))
        made.step(2)
        made.check()
        assert made.done
        assert made.kinds() == {"a": "duplicated"}


def test_a_full_window_is_filled_up_in_batches() -> None:
    """When a tenth of it is free, and to the last entry."""
    entries = tuple(entry(f"e{n}") for n in range(35))
    with rig(Plan(entries, window=30)) as made:
        while len(made.engine.pending) < 30:
            made.step()
        sent = [len(made.world.queue)]
        for _ in range(3):
            ended(made)
            made.step()
            sent.append(len(made.world.queue))
        assert sent == [sent[0] - taken for taken in range(4)]
        made.step()
        assert len(made.world.queue) == sent[0]
        made.finish()
        assert set(made.kinds().values()) == {"passed"}
        assert len(made.kinds()) == 35


def test_a_stop_takes_back_what_no_worker_has_begun() -> None:
    """What runs is gathered, what waits is taken back, and what was not sent has no verdict."""
    with rig(Plan((entry("a"), entry("b"), entry("c")), window=2)) as made:
        made.step()
        begun(made)
        made.step()
        made.stop(by_a_person=True)
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed", "b": "withdrawn"}
        assert made.open_entries() == ["c"]


def test_a_stop_takes_nothing_back_while_a_worker_is_silent() -> None:
    """It may have begun what nobody else knows of."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        for worker in made.world.workers.values():
            made.world.take(worker)
            worker.paused = True
        made.stop(by_a_person=False)
        made.engine.wind_down()
        assert made.kinds() == {}


def test_a_stop_takes_out_of_the_queue_what_no_silent_worker_can_have() -> None:
    """On a stack of our own; a worker that hears of no revocation finds nothing when it goes on."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        for worker in made.world.workers.values():
            worker.paused = True
        made.stop(by_a_person=False)
        made.engine.wind_down()
        assert made.kinds() == {"a": "withdrawn", "b": "withdrawn"}
        assert not made.world.queue


def test_a_stop_calls_nothing_revoked_once_the_store_was_emptied() -> None:
    """What the store said of starts is gone, so nobody knows what was not begun."""
    with rig(Plan((entry(),))) as made:
        made.step()
        ended(made)
        made.world.flush(everything=False)
        made.stop(by_a_person=False)
        made.engine.wind_down()
        assert made.kinds() == {}


def test_a_job_that_runs_too_long_is_timed_out_until_its_receipt_comes() -> None:
    """The harness speaks for it after its timeout and a grace; the receipt knows better."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        delivery = begun(made)
        made.run(30 + TIMEOUT_GRACE)
        assert made.kinds() == {}
        made.run(1)
        assert made.kinds() == {"a": "timed_out"}
        made.world.end(first(made), delivery, "failed")
        made.finish()
        made.check()
        assert made.kinds() == {"a": "failed", "b": "passed"}


@pytest.mark.parametrize(("how", "others"), [("succeeded", "passed"), ("failed", "skipped")])
def test_the_canary_opens_the_way_only_if_it_passes(how: How, others: str) -> None:
    """Until it has its verdict nothing else is sent; if it failed, nothing ever is."""
    with rig(Plan((entry("a"), entry("b"), entry("c")), canary=1)) as made:
        made.step(3)
        assert list(made.world.published) == [made.task_id("a")]
        made.world.end(first(made), begun(made), how)
        made.finish()
        made.check()
        assert (made.kind("b"), made.kind("c")) == (others, others)
        assert len(made.world.published) == (3 if others == "passed" else 1)


def test_a_deadline_ends_the_waiting_for_an_entry() -> None:
    """No worker takes it: timed out when its own deadline is over, and not before."""
    with rig(Plan((entry(deadline=20.0),))) as made:
        made.run(19)
        assert made.kinds() == {}
        made.run(3)
        assert made.kinds() == {"a": "timed_out"}


def test_an_entry_waits_for_what_it_names_and_is_skipped_when_that_fails() -> None:
    """The world's publisher refuses what is sent too early; what can never go is skipped."""
    with rig(Plan((entry("a"), entry("b", after=("a",)), entry("c", after=("b",))))) as made:
        made.step(3)
        assert list(made.world.published) == [made.task_id("a")]
        ended(made)
        made.step(2)
        assert list(made.world.published) == [made.task_id("a"), made.task_id("b")]
        made.world.end(first(made), begun(made), "failed")
        made.finish()
        made.check()
        assert made.kinds() == {"a": "passed", "b": "failed", "c": "skipped"}


def test_what_was_read_before_the_store_went_away_is_kept() -> None:
    """A sweep that is cut short has moved the reader on: what it brought would not come again."""
    with rig(Plan((entry("a"), entry("b")))) as made:
        made.step()
        ended(made)
        clock = made.world.clock
        # The plain results and the records are read; then, for the stream's end, nothing is there.
        made.world.between(2, lambda: setattr(made.world, "store_down", clock.now + 1))
        made.step()
        made.run(3)
        assert made.kinds() == {"a": "passed"}
        assert [one.execution for one in made.ledger.events.starts(made.task_id("a"))] != []


# What it costs


def priced(name: str, told: float | None = None, *, retries: int = 0) -> Entry:
    """An entry with an estimate of 1, whose receipts tell ``told``."""
    meta: dict[str, JsonValue] = {} if told is None else {"costs": told}
    return Entry(
        id=name, task="t", cost=1.0, idempotent=True, retries=retries, timeout=30.0, meta=meta
    )


def skipped(made: Rig) -> set[str]:
    return {name for name, kind in made.kinds().items() if kind == "skipped"}


def test_what_a_receipt_tells_counts_in_place_of_the_estimate() -> None:
    """Four estimates of 1 are beyond 2, and four jobs that cost 0.25 each are not."""
    entries = tuple(priced(name, 0.25) for name in "abcd")
    with rig(Plan(entries, budget=2.0)) as made:
        made.step()
        assert len(made.world.published) == 2
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}


def test_when_nothing_more_fits_the_rest_is_skipped() -> None:
    """The sentence has cost and budget, the ledger knows that the run is not complete."""
    entries = tuple(priced(name, 0.75) for name in "abcd")
    with rig(Plan(entries, budget=2.0)) as made:
        made.finish()
        made.check()
        assert skipped(made) == {"c", "d"}
        note = "the run has cost 1.5 of its budget of 2, and the next entry, with an estimate of 1,"
        assert note in made.sentence("d")
        assert note in (made.ledger.info.get_meta(OVER_BUDGET) or "")


def test_a_run_that_is_complete_is_not_over_its_budget() -> None:
    """Whatever it has cost."""
    with rig(Plan((priced("a", 5.0), priced("b", 5.0)), budget=2.0)) as made:
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}
        assert made.ledger.info.get_meta(OVER_BUDGET) is None


@pytest.mark.parametrize(("budget", "sendings"), [(1.5, 1), (2.0, 2)])
def test_another_attempt_is_made_if_there_is_money_for_it(budget: float, sendings: int) -> None:
    """Of the one that crashed nobody tells a cost, so its estimate is spent."""
    with rig(Plan((priced("a", retries=1),), budget=budget)) as made:
        made.step()
        made.world.kill_child(first(made), begun(made))
        made.finish()
        made.check()
        assert len(made.world.published) == sendings
        assert made.kinds() == {"a": "passed" if sendings == 2 else "skipped"}


def test_a_second_execution_costs_once_more() -> None:
    """What somebody else has sent twice is paid twice."""
    with rig(Plan((priced("a", 0.75), priced("b", 0.75)), budget=2.0, window=1)) as made:
        made.step()
        made.world.meddled.add(made.task_id("a"))
        made.world.queue.append(made.world.queue[0])
        ended(made)
        ended(made)
        made.finish()
        made.check()
        assert made.kinds() == {"a": "duplicated", "b": "skipped"}


def test_a_late_receipt_tells_what_an_overdue_job_has_cost() -> None:
    """Until it comes the estimate counts, and keeps others waiting."""
    entries = (priced("a", 0.25), priced("b", 0.25), priced("c", 0.25))
    with rig(Plan(entries, budget=2.5)) as made:
        made.step()
        delivery = begun(made)
        made.run(30 + TIMEOUT_GRACE + 1)
        assert made.kinds() == {"a": "timed_out"}
        assert made.task_id("c") not in made.world.published
        made.world.end(first(made), delivery, "succeeded")
        made.step(2)
        assert made.task_id("c") in made.world.published
        made.finish()
        made.check()
        assert set(made.kinds().values()) == {"passed"}


# When time is over


def test_nothing_begins_after_the_verdict_of_a_run_whose_time_is_over() -> None:
    """What waits leaves the queue, what runs may end, and its receipt is read before."""
    entries = (entry("a"), entry("b"), entry("c"), entry("d"))
    with rig(Plan(entries, window=3, deadline=5.0)) as made:
        made.step()
        running = begun(made)
        made.world.take(first(made))
        made.world.later(8.0, lambda: made.world.end(first(made), running, "succeeded"))
        made.run(30)
        assert made.done
        assert made.kinds() == {"a": "passed"} | dict.fromkeys("bcd", "timed_out")
        states = {row.entry: row.state for row in made.ledger.attempts.all()}
        assert states == {"a": "sent", "b": "withdrawn", "c": "withdrawn", "d": "planned"}
        # A worker that is started anew has heard of nothing, and there is nothing for it.
        made.world.kill(first(made), restart=0.1)
        made.world.become_fair()
        made.world.clock.sleep(60)
        assert [run.message.entry.id for run in made.world.executions] == ["a"]


def test_what_a_worker_had_taken_in_advance_is_taken_back_too() -> None:
    """It drops it when it could begin it, and says so: as it was told to by the run."""
    with rig(Plan((entry("a"), entry("b")), deadline=5.0)) as made:
        made.step()
        running = begun(made)
        made.world.take(first(made))

        def end() -> None:
            made.world.end(first(made), running, "succeeded")
            assert made.world.begin(first(made)) is None

        made.world.later(8.0, end)
        made.run(30)
        assert made.done
        assert made.kinds() == {"a": "passed", "b": "timed_out"}
        assert "it was taken back before a worker had reported its start" in made.sentence("b")
        states = {row.entry: row.state for row in made.ledger.attempts.all()}
        assert states == {"a": "sent", "b": "withdrawn"}


def test_what_does_not_end_in_its_grace_is_timed_out() -> None:
    with rig(Plan((entry("a"), entry("b")), deadline=5.0)) as made:
        made.step()
        begun(made)
        made.run(60)
        assert made.kinds() == {"a": "timed_out", "b": "timed_out"}
        states = {row.entry: row.state for row in made.ledger.attempts.all()}
        assert states == {"a": "sent", "b": "withdrawn"}


def test_what_may_have_run_meanwhile_is_not_withdrawn() -> None:
    """It was seen nowhere, and what the store has of it could not be read."""
    with rig(Plan((entry("a"), entry("b")), deadline=5.0)) as made:
        made.step()
        delivery = begun(made)
        made.world.end(first(made), delivery, "succeeded")
        made.world.store_down = made.world.clock.now + 600
        made.run(60)
        states = {row.entry: row.state for row in made.ledger.attempts.all()}
        assert states["a"] != "withdrawn"


def test_the_broker_of_others_keeps_what_waits_when_time_is_over() -> None:
    with rig(Plan((entry("a"),), owned=False, deadline=5.0)) as made:
        made.run(10)
        assert made.kinds() == {"a": "timed_out"}
        assert made.world.has(made.task_id("a"))


def test_that_the_store_was_away_at_the_deadline_is_said() -> None:
    """Else the verdict would speak of workers alone, which may have done it all."""
    with rig(Plan((entry("a"),), owned=False, deadline=5.0)) as made:
        made.step()
        made.world.store_down = made.world.clock.now + 600
        made.run(10)
        said = made.sentence("a")
        assert "deadline of 5 s is over, and the result store cannot be reached" in said


def test_an_entry_whose_own_time_is_over_is_not_begun_later() -> None:
    with rig(Plan((entry("a", deadline=20.0), entry("b")))) as made:
        made.step()
        made.run(22)
        assert made.kinds() == {"a": "timed_out"}
        made.finish()
        assert made.kinds() == {"a": "timed_out", "b": "passed"}
        assert [run.message.entry.id for run in made.world.executions] == ["b"]


def test_a_stop_counts_on_no_result_that_says_revoked() -> None:
    """One worker stores that it has heard of it, while another one, which is silent, runs it."""
    with rig(Plan((entry("a"),))) as made:
        made.step()
        other = made.world.workers["w2@box"]
        made.world.take(other)
        other.paused = True
        made.stop(by_a_person=True)
        made.engine.wind_down()
        assert made.kinds() == {}


def test_every_entry_gets_its_verdict_although_the_manifest_is_gone() -> None:
    """It is known what to say of a run whose time is over, whatever its entries expected."""

    class Gone(dict[str, Entry]):
        def __getitem__(self, name: str) -> Entry:
            raise file_error(Path("m.jsonl"), f"there is no such file, and so no {name!r}")

    with rig(Plan((entry("a"), entry("b")), window=1, deadline=5.0)) as made:
        made.step()
        begun(made)
        gone = Gone((one.id, one) for one in (entry("a"), entry("b")))
        made.engine._recorder._manifest = cast("Manifest", gone)
        made.run(60)
        assert made.kinds() == {"a": "timed_out", "b": "timed_out"}
        assert "what it expects cannot be read" in made.sentence("b")
