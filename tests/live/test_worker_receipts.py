"""What instrumented workers hand in, for every way in which a task can end."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import uuid
from datetime import datetime, timedelta, timezone

import pytest
import redis
from celery.result import AsyncResult

from pytest_manifest.results.records import FinishedRecord, HandedOnRecord, StartedRecord
from pytest_manifest.schema.wire import code_digest, stream_key
from tests.live.apps import worker_tasks
from tests.live.apps.worker_support import (
    INCLUDE,
    INSTRUMENTED,
    STOCK,
    TTL,
    Bench,
    Flavour,
    Sent,
    bench_of,
)
from tests.processes import said_by_system
from tests.support import eventually

pytestmark = pytest.mark.live

FLAVOURS = [
    Flavour("included", STOCK, INCLUDE),
    Flavour("one-line", INSTRUMENTED),
]
bench = bench_of(FLAVOURS, pytest.mark.ring(1))


def digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def test_success(bench: Bench) -> None:
    """A task that returns gives a start and a receipt with everything that is known of it."""
    before = datetime.now(timezone.utc)
    sent = bench.send("add", 20, 22)
    receipt = bench.receipt(sent)
    start, end = bench.records(sent)

    assert isinstance(start, StartedRecord)
    assert isinstance(end, FinishedRecord)
    assert start.execution == end.execution
    assert (start.task_id, start.task, start.entry) == (sent.task_id, "add", "the entry")
    assert (start.attempt, start.retries, start.redelivered) == (2, 0, False)
    assert start.pid == receipt.pid
    assert (receipt.run, receipt.entry, receipt.attempt) == (sent.run, "the entry", 2)
    assert (receipt.state, receipt.result, receipt.source) == ("succeeded", 42, "worker")
    assert (receipt.worker, receipt.host) == (bench.node, socket.gethostname())
    assert receipt.queue == bench.queue
    assert receipt.error is None
    assert receipt.args_sha256 == digest([[20, 22], {}])
    assert receipt.result_sha256 == digest(42)
    times = [receipt.sent_at, receipt.received_at, receipt.started_at, receipt.finished_at]
    known = [time for time in times if time is not None]
    assert len(known) == 4
    assert before <= known[0]
    assert known == sorted(known)
    assert receipt.wait is not None
    assert receipt.runtime is not None
    assert receipt.cpu is not None
    assert receipt.wait >= 0
    assert receipt.max_rss is not None
    assert receipt.max_rss > 10_000_000


def test_stream_lives_as_long_as_it_was_told(bench: Bench, valkey: str) -> None:
    """The stream expires after the time that the messages' header names."""
    sent = bench.send("add", 1, 2)
    bench.receipt(sent)
    with redis.Redis.from_url(valkey) as client:
        assert 0 < client.ttl(stream_key(sent.run)) <= TTL


def test_plain_result_is_stored_and_published_as_ever(bench: Bench) -> None:
    """Code that reads Celery's own result finds what it would find without us."""
    sent = bench.send("echo", {"a": [1, None, "é"]})
    result = AsyncResult(sent.task_id, app=bench.app)
    assert result.get(timeout=30) == {"a": [1, None, "é"]}
    assert bench.app.backend.client.ttl(f"celery-task-meta-{sent.task_id}") > 3600


@pytest.mark.parametrize(("task", "argument"), [("echo", 1), ("flaky", 1), ("fail", "no")])
def test_the_code_that_ran_is_the_code_that_is_here(
    bench: Bench, task: str, argument: object
) -> None:
    """Worker and dispatching side come to the same digest, also of a bound task that retries."""
    code = bench.ask(task, argument).code
    assert code is not None
    assert code == code_digest(getattr(worker_tasks, task))


def test_cpu_and_runtime(bench: Bench) -> None:
    """CPU seconds and run time are those of the task."""
    receipt = bench.ask("burn", 0.2)
    assert receipt.cpu is not None
    assert receipt.runtime is not None
    assert receipt.cpu >= 0.2
    assert receipt.runtime >= 0.2


def test_arguments_are_digested_as_sent(bench: Bench) -> None:
    """A task that changes its arguments does not change their digest."""
    receipt = bench.ask("mutate", [1, 2, 3])
    assert receipt.result == [1, 2, 3, 4]
    assert receipt.args_sha256 == digest([[[1, 2, 3]], {}])


def test_failure(bench: Bench) -> None:
    """An exception is told by type, message, and a traceback without the worker's frames."""
    receipt = bench.ask("fail", "no such film")
    assert (receipt.state, receipt.result, receipt.result_sha256) == ("failed", None, None)
    assert receipt.error is not None
    assert (receipt.error.type, receipt.error.message) == ("ValueError", "no such film")
    assert receipt.error.traceback is not None
    assert "raise ValueError(message)" in receipt.error.traceback
    assert "trace.py" not in receipt.error.traceback


def test_retry_is_not_final(bench: Bench) -> None:
    """A task that retries starts twice and ends once, with what it came to at last."""
    sent = bench.send("flaky", 1)
    receipt = bench.receipt(sent)
    assert [start.retries for start in bench.starts(sent)] == [0, 1]
    assert (receipt.state, receipt.result) == ("succeeded", "after 1 retries")
    assert (receipt.retries, receipt.redelivered) == (1, False)
    assert [start.execution for start in bench.starts(sent)][1] == bench.ends(sent)[0].execution
    (handed_on,) = [one for one in bench.records(sent) if isinstance(one, HandedOnRecord)]
    assert (handed_on.how, handed_on.cost) == ("retry", 0.25)
    assert receipt.evidence["cost"] == 1.25


def test_retry_that_comes_too_late(bench: Bench) -> None:
    """A retry that expires before its turn is another execution than the one that asked for it."""
    sent = bench.send("retry_too_late")
    assert bench.receipt(sent).state == "expired"
    (start,) = bench.starts(sent)
    assert start.execution != bench.ends(sent)[0].execution


def test_replaced_task_keeps_its_receipt(bench: Bench) -> None:
    """A task that replaces itself is told by what its replacement came to."""
    sent = bench.send("replace", 21)
    receipt = bench.receipt(sent)
    assert (receipt.state, receipt.task, receipt.result) == ("succeeded", "double", 42)
    assert receipt.replaced


@pytest.mark.parametrize(
    ("task", "args", "state", "result"),
    [
        ("quiet", (1, 2), "succeeded", 3),
        ("quiet_fail", ("still told",), "failed", None),
        ("quiet_die", (), "crashed", None),
    ],
)
def test_ignored_results_have_receipts(
    bench: Bench, task: str, args: tuple[object, ...], state: str, result: object
) -> None:
    """A task whose result nobody stores has a receipt all the same."""
    receipt = bench.ask(task, *args)
    assert (receipt.state, receipt.result) == (state, result)


@pytest.mark.parametrize(
    ("task", "state", "message"),
    [("ignore", "ignored", "nothing to do"), ("reject", "rejected", "not for me")],
)
def test_what_a_task_does_not_do_is_told(bench: Bench, task: str, state: str, message: str) -> None:
    """That it raises Ignore; once that it rejects its message for good."""
    receipt = bench.ask(task)
    assert receipt.state == state
    assert receipt.error is not None
    assert receipt.error.message == message


def test_reject_and_requeue(bench: Bench) -> None:
    """A message that is put back is told when it is taken, and says that it came again."""
    marker = bench.directory / uuid.uuid4().hex
    sent = bench.send("reject_once", str(marker))
    receipt = bench.receipt(sent)
    assert (receipt.state, receipt.result, receipt.redelivered) == ("succeeded", "taken", True)
    assert [start.redelivered for start in bench.starts(sent)] == [False, True]


def test_tracked_task(bench: Bench) -> None:
    """A task whose STARTED is stored first (track_started) has one receipt and its result."""
    sent = bench.send("tracked", 1, 2)
    assert bench.receipt(sent).result == 3
    assert AsyncResult(sent.task_id, app=bench.app).get(timeout=30) == 3


def test_same_id_twice(bench: Bench) -> None:
    """The same task sent twice runs twice, and both executions are told."""
    sent = bench.send("add", 1, 2)
    bench.receipt(sent)
    headers = bench.headers(sent.run)
    bench.app.send_task("add", [2, 2], task_id=sent.task_id, queue=bench.queue, headers=headers)
    eventually(lambda: len(bench.ends(sent)) == 2, within=30, what="two receipts")
    assert [end.receipt["result"] for end in bench.ends(sent)] == [3, 4]
    # As Celery does it: a success that is there is not overwritten.
    assert AsyncResult(sent.task_id, app=bench.app).get(timeout=30) == 3


def test_revoked(bench: Bench) -> None:
    """A task revoked before its turn is told as revoked."""
    marker = bench.directory / uuid.uuid4().hex
    first = bench.send("hold", str(marker))
    eventually(lambda: bench.starts(first), within=30, what="the first task runs")
    task_id = f"revoked-{uuid.uuid4()}"
    bench.app.control.revoke([task_id], destination=[bench.node], reply=True, timeout=10)
    sent = bench.send("add", 1, 2, task_id=task_id)
    marker.touch()
    receipt = bench.receipt(sent)
    assert receipt.state == "revoked"
    assert receipt.started_at is None
    assert bench.starts(sent) == []


@pytest.mark.ring(2)
def test_terminated(bench: Bench) -> None:
    """A running task that is revoked with its process says so, with the lines that it logged."""
    sent = bench.send("hang", "running")
    eventually(lambda: bench.starts(sent), within=30, what="the task runs")
    eventually(bench.spooled, within=30, what="its line is on disk")
    bench.app.control.revoke([sent.task_id], terminate=True, signal="SIGKILL")
    receipt = bench.receipt(sent)
    assert receipt.state == "revoked"
    assert receipt.error is not None
    assert receipt.error.message == "terminated"
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["running"]
    bench.settle()
    assert len(bench.ends(sent)) == 1


def test_expired(bench: Bench) -> None:
    """A task whose time was over before its turn is told as expired."""
    receipt = bench.ask("add", 1, 2, expires=datetime.now(timezone.utc) - timedelta(seconds=5))
    assert receipt.state == "expired"


def test_unknown_task(bench: Bench) -> None:
    """A task that the worker does not know is told as that."""
    receipt = bench.ask("no.such.task", 1)
    assert (receipt.state, receipt.task) == ("unknown_task", "no.such.task")
    assert receipt.error is not None
    assert "no.such.task" in receipt.error.message


def test_message_that_makes_no_sense(bench: Bench) -> None:
    """A message that the worker turns away is told as rejected, with the reason."""
    receipt = bench.ask("add", 1, 2, headers={"eta": "the day after tomorrow"})
    assert receipt.state == "rejected"
    assert receipt.error is not None
    assert "eta" in receipt.error.message.lower()


def test_message_that_cannot_be_decoded(bench: Bench) -> None:
    """A corrupt message, of which Celery only logs a line, is told as rejected."""
    run8 = uuid.uuid4().hex[:8]
    run = f"20261124T150000-{run8}"
    headers = bench.headers(run) | {"task": "add", "id": f"{run8}-1", "lang": "py"}
    with bench.app.connection_for_write() as connection:
        producer = connection.Producer(auto_declare=False)
        producer.publish(
            b"{not json",
            content_type="application/json",
            content_encoding="utf-8",
            routing_key=bench.queue,
            headers=headers,
        )
    receipt = bench.receipt(Sent(run, f"{run8}-1"))
    assert receipt.state == "rejected"
    assert receipt.error is not None
    assert receipt.error.type == "DecodeError"


def test_killed_child(bench: Bench) -> None:
    """A task that takes its process down is told as crashed, with what it said before."""
    sent = bench.send("die", "famous last words")
    receipt = bench.receipt(sent)
    assert receipt.state == "crashed"
    assert receipt.error is not None
    assert receipt.error.type == "WorkerLostError"
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["famous last words"]
    assert receipt.evidence == {"said": "famous last words"}
    assert receipt.pid == bench.starts(sent)[0].pid
    assert receipt.started_at is not None
    assert receipt.runtime is None
    bench.settle()
    assert len(bench.ends(sent)) == 1
    assert bench.spooled() == []


@pytest.mark.ring(2)
def test_exit_in_a_task(bench: Bench) -> None:
    """A task that calls sys.exit is told as crashed, with what it said before."""
    receipt = bench.ask("leave")
    assert receipt.state == "crashed"
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["leaving"]


def test_hard_time_limit(bench: Bench) -> None:
    """A task over its message's time limit is killed and told as timed out, with its lines."""
    receipt = bench.ask("hang", "so slow", time_limit=1)
    assert receipt.state == "timed_out"
    assert receipt.error is not None
    assert receipt.error.type == "TimeLimitExceeded"
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["so slow"]
    assert receipt.runtime is not None
    assert receipt.runtime >= 0.9
    assert bench.spooled() == []


def test_a_later_soft_limit_does_not_take_the_hard_one_away(bench: Bench) -> None:
    """Celery counts the hard one from the soft one on, which here would be in some minutes."""
    sent = bench.send("hang", time_limit=0.5, soft_time_limit=300)
    assert bench.receipt(sent).state == "timed_out"


def test_soft_time_limit(bench: Bench) -> None:
    """A task that ends by its soft time limit is told as timed out."""
    assert bench.ask("impatient").state == "timed_out"


@pytest.mark.ring(2)
def test_late_ack_runs_again(bench: Bench) -> None:
    """A late-acknowledged task whose process dies starts twice, as two executions."""
    marker = bench.directory / uuid.uuid4().hex
    sent = bench.send("die_once", str(marker))
    receipt = bench.receipt(sent)
    first, second = bench.starts(sent)
    assert first.execution != second.execution
    assert (first.redelivered, second.redelivered) == (False, True)
    assert (receipt.state, receipt.result, receipt.redelivered) == ("succeeded", "survived", True)
    assert len(receipt.log) == 1  # the second run's own, not the killed one's
    bench.settle()
    assert bench.spooled() == []


def test_result_that_cannot_be_stored(bench: Bench) -> None:
    """Where storing the result fails, the receipt says failed, whatever the task returned."""
    receipt = bench.ask("unserialisable")
    assert (receipt.state, receipt.result) == ("failed", None)
    assert receipt.error is not None
    assert receipt.error.type == "EncodeError"


def test_exception_that_cannot_be_pickled(bench: Bench) -> None:
    """An exception that no serialiser takes keeps its own type and text."""
    receipt = bench.ask("unpicklable", "the lock")
    assert receipt.error is not None
    assert (receipt.error.type, receipt.error.message) == (
        "UnpicklableError",
        "unpicklable: the lock",
    )


def test_huge_result(bench: Bench) -> None:
    """A result above the limit stays in the result store; the receipt has its digest."""
    receipt = bench.ask("huge", 2 * 1024 * 1024)
    assert (receipt.state, receipt.result) == ("succeeded", None)
    assert receipt.result_sha256 == digest("x" * 2 * 1024 * 1024)
    assert receipt.evidence == {"result_omitted": 2 * 1024 * 1024 + 2}
    assert "result store has it" in receipt.log[-1]


def test_result_that_is_no_plain_json(bench: Bench) -> None:
    """A date, which Celery's JSON can hold, is what that makes of it."""
    receipt = bench.ask("dated")
    at = {"__type__": "datetime", "__value__": "2026-11-24T15:00:00+00:00"}
    assert receipt.result == {"at": at}
    assert receipt.result_sha256 == digest({"at": at})


def test_evidence(bench: Bench) -> None:
    """What a task says of itself is in its receipt."""
    receipt = bench.ask("witness", kwargs={"pool": {"size": 5, "free": [1, 2]}, "note": None})
    assert receipt.evidence == {"pool": {"size": 5, "free": [1, 2]}, "note": None}


def test_bad_evidence(bench: Bench) -> None:
    """Evidence that is no JSON fails the task with an error that names it."""
    receipt = bench.ask("bad_evidence")
    assert receipt.error is not None
    assert receipt.error.type == "TypeError"
    assert "'lock'" in receipt.error.message


def test_other_tasks_are_left_alone(bench: Bench, valkey: str) -> None:
    """A message without our headers leaves no record, and its result is as ever."""
    sent = bench.send("add", 1, 2, ours=False)
    assert AsyncResult(sent.task_id, app=bench.app).get(timeout=30) == 3
    bench.settle()
    with redis.Redis.from_url(valkey) as client:
        assert client.exists(stream_key(sent.run)) == 0


def test_no_warnings_of_our_own(bench: Bench) -> None:
    """Nothing of all that makes a signal handler of ours fail."""
    bench.settle()
    log = bench.log.read_text()
    assert "Signal handler" not in log
    assert "was lost" not in log


@pytest.mark.ring(2)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(bench: Bench) -> None:
    """Many tasks leave nothing behind in the child that ran them or in the main process."""

    def resident(pid: int) -> int:
        status = said_by_system(pid, "status")
        return int(status.partition("VmRSS:")[2].split()[0])

    def batch() -> int:
        last = [bench.send("echo", "x" * 2000) for _ in range(400)][-1]
        child = bench.receipt(last).pid
        assert child is not None
        return resident(child) + resident(bench.process_id)

    batch()
    before = batch()
    batch()
    assert batch() - before < 2000  # KiB; 800 leaked results alone would be 1,600 in each
