"""Attempts in flight: when the harness speaks for a job that says nothing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.run.inflight import SPARE, TIMEOUT_GRACE, PendingAttempts
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.schema import Entry
from pytest_manifest.schema.facts import HandedOn, Sending, Started
from tests.reports import handed_on, started

RUN = "20261124T150000-0123abcd"
MOMENT = datetime(2026, 11, 24, 15, tzinfo=timezone.utc)


def flights(*entries: Entry) -> tuple[PendingAttempts, list[str]]:
    made = PendingAttempts()
    attempts = [attempt_of(RUN, entry, 1) for entry in entries]
    for attempt in attempts:
        made.track(attempt, sent=100.0)
    return made, [attempt.task_id for attempt in attempts]


def start(task_id: str, worker: str = "w@h", *, retries: int = 0) -> Started:
    return started(task_id, f"{task_id}-{worker}-{retries}", None, retries, worker, "h", 1, False)


def test_a_timeout_counts_from_the_start() -> None:
    """A job that waits is not overdue; one that runs too long is, after the grace."""
    made, (slow, waiting) = flights(
        Entry(id="slow", task="t", timeout=10), Entry(id="waiting", task="t", timeout=10)
    )
    made.started(start(slow, "w@h"), now=200.0)
    assert made.overdue(200 + 10 + TIMEOUT_GRACE - 0.1) == {}
    (late,) = made.overdue(200 + 10 + TIMEOUT_GRACE).values()
    assert (late.job.entry.id, late.by_start) == ("slow", True)
    assert made.complete(slow) is late.job
    assert list(made.by_task_id) == [waiting]


def test_while_no_receipt_can_come_nothing_runs_too_long() -> None:
    """Nor right after: a worker whose job has ended tells of it when the store is back."""
    made, (slow, late) = flights(
        Entry(id="slow", task="t", timeout=10), Entry(id="late", task="t", deadline=120)
    )
    made.started(start(slow), now=200.0)
    made.postpone_timeouts(214.9)
    made.postpone_timeouts(230.0)
    assert list(made.overdue(230.0)) == [late]
    assert list(made.overdue(230 + TIMEOUT_GRACE)) == [slow]


def test_a_deadline_counts_from_the_sending() -> None:
    """An entry's deadline ends its waiting whether it has started or not."""
    made, _ = flights(Entry(id="a", task="t", deadline=30))
    assert made.overdue(129.9) == {}
    (late,) = made.overdue(130.0).values()
    assert (late.by_start, late.job.entry.id) == (False, "a")


def test_a_retry_has_its_own_timeout() -> None:
    """A task that is started again by a retry is measured from its last start."""
    made, (task_id,) = flights(Entry(id="a", task="t", timeout=10))
    made.started(start(task_id, "w@h"), now=200.0)
    made.started(start(task_id, "w@h"), now=209.0)
    assert made.overdue(200 + 10 + TIMEOUT_GRACE) == {}
    (late,) = made.overdue(209 + 10 + TIMEOUT_GRACE).values()
    assert late.by_start


def ended(task_id: str, *, retries: int = 0, how: str = "retry") -> HandedOn:
    return handed_on(task_id, f"{task_id}-w@h-{retries}", how, None, None)


def test_between_two_tries_no_timeout_counts() -> None:
    """However long the next try is waited for; once it has begun, its own time counts."""
    made, (task_id,) = flights(Entry(id="a", task="t", timeout=10))
    made.started(start(task_id), now=200.0)
    made.handed_on(ended(task_id))
    assert made.overdue(10_000.0) == {}
    assert made.waiting() == {task_id}
    assert made.unstarted() == set()
    made.started(start(task_id, retries=1), now=10_000.0)
    assert made.waiting() == set()
    assert list(made.overdue(10_000 + 10 + TIMEOUT_GRACE)) == [task_id]


def test_a_deadline_counts_between_two_tries() -> None:
    """It is the entry's longest wait for everything."""
    made, (task_id,) = flights(Entry(id="a", task="t", deadline=30))
    made.started(start(task_id), now=110.0)
    made.handed_on(ended(task_id))
    assert list(made.overdue(130.0)) == [task_id]


def test_the_end_of_an_earlier_try_says_nothing_of_this_one() -> None:
    """Its record may come after the next try's start."""
    made, (task_id,) = flights(Entry(id="a", task="t", timeout=10))
    made.started(start(task_id), now=200.0)
    made.started(start(task_id, retries=1), now=201.0)
    made.handed_on(ended(task_id))
    assert list(made.overdue(201 + 10 + TIMEOUT_GRACE)) == [task_id]


def test_a_worker_that_dies_does_not_take_a_waiting_try_with_it() -> None:
    """The process that ran the last try may be gone: the next one begins in another."""
    made, (task_id,) = flights(Entry(id="a", task="t"))
    made.started(start(task_id, "manifest1@h"), now=200.0)
    made.handed_on(handed_on(task_id, f"{task_id}-manifest1@h-0", "retry", None, None))
    made.worker_lost(WorkerLoss("manifest1", -9))
    assert made.by_task_id[task_id].loss is None


def test_what_other_messages_carry_is_not_waiting_here() -> None:
    """A job that was handed on to a chain is under other ids until the chain's last task."""
    made, (task_id,) = flights(Entry(id="a", task="t"))
    made.started(start(task_id), now=200.0)
    made.handed_on(ended(task_id, how="canvas"))
    assert made.elsewhere() == {task_id}
    assert made.waiting() == set()
    made.started(start(task_id, retries=1), now=201.0)
    assert made.elsewhere() == frozenset()


def test_what_has_landed_is_never_overdue() -> None:
    """A receipt in time ends all waiting, and a second one finds nothing."""
    made, (task_id,) = flights(Entry(id="a", task="t", deadline=30))
    assert made.complete(task_id) is not None
    assert made.complete(task_id) is None
    assert made.overdue(1000.0) == {}


def test_a_dead_worker_is_noted_at_what_it_was_running() -> None:
    """Only what that worker had started is marked; what another one took over is not."""
    names = ("mine", "other", "moved")
    made, (mine, other, moved) = flights(*(Entry(id=name, task="t") for name in names))
    made.started(start(mine, "manifest1@host"), now=101.0)
    made.started(start(other, "manifest2@host"), now=101.0)
    made.started(start(moved, "manifest1@host"), now=101.0)
    loss = WorkerLoss("manifest1", -9)
    made.worker_lost(loss)
    made.started(start(moved, "manifest2@host"), now=111.0)
    assert {i: flight.loss for i, flight in made.by_task_id.items()} == {
        mine: loss,
        other: None,
        moved: None,
    }


def test_moments_of_jobs_that_have_landed_are_forgotten() -> None:
    """However many jobs end in time; what is in flight stays overdue at its time."""
    names = [f"e-{n}" for n in range(5 * SPARE)]
    made, ids = flights(*(Entry(id=name, task="t", timeout=10) for name in ("slow", *names)))
    for task_id in ids:
        made.started(start(task_id), now=200.0)
        if task_id != ids[0]:
            made.complete(task_id)
    assert len(made._due) < 2 * SPARE
    assert list(made.overdue(200 + 10 + TIMEOUT_GRACE)) == ids[:1]


def test_what_is_known_of_a_job_is_known_without_the_ledger() -> None:
    """Of an attempt that was sent just now, begun once; reported twice, it is still one start."""
    made = PendingAttempts()
    attempt = attempt_of(RUN, Entry(id="a", task="t"), 1)
    sending = Sending(seq=5, at=MOMENT, job=attempt.task_id, number=1, sent_at=MOMENT)
    made.track(attempt, sent=100.0, sent_at=MOMENT, facts=[sending])
    flight = made.by_task_id[attempt.task_id]
    first = start(attempt.task_id)
    for now in (101.0, 102.0):
        made.started(first, now, seq=7)
        assert [one.seq for one in flight.facts or ()] == [5, 7]
    made.started(replace(first, pid=4321), now=102.5)  # its pool gave the job to another process
    assert flight.facts is None
    made.started(first, now=102.6, seq=8)
    assert flight.facts is None


def test_what_goes_on_is_known_by_the_ledger() -> None:
    made = PendingAttempts()
    attempt = attempt_of(RUN, Entry(id="a", task="t"), 1)
    made.track(attempt, sent=100.0, facts=[])
    made.handed_on(handed_on(attempt.task_id, "x1", "retry", MOMENT, None))
    assert made.by_task_id[attempt.task_id].facts is None


def test_there_may_be_other_starts_of_what_was_sent_before() -> None:
    """An attempt of an earlier process, or one whose message was sent twice: the ledger knows."""
    made, (task_id,) = flights(Entry(id="a", task="t"))
    made.started(start(task_id), now=200.0)
    assert made.by_task_id[task_id].facts is None
