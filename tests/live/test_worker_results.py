"""Receipts that ride inside the result, where the result store is no Redis."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import redis
from celery.backends.database.session import SessionManager
from pydantic import JsonValue

from pytest_manifest.schema import Receipt
from pytest_manifest.schema.wire import plain_traceback, stream_key, unwrap_result
from tests.live.apps.worker_support import (
    INCLUDE,
    INSTRUMENTED,
    STOCK,
    Bench,
    Flavour,
    Sent,
    running_worker,
)
from tests.processes import tail
from tests.support import eventually

pytestmark = pytest.mark.live

FLAVOURS = [Flavour("included", STOCK, INCLUDE), Flavour("one-line", INSTRUMENTED)]
OUTCOMES = [
    ("add", (1, 2), "succeeded", 3),
    ("echo", ({"manifest": [1, None, "é"]},), "succeeded", {"manifest": [1, None, "é"]}),
    ("fail", ("no such film",), "failed", None),
    ("flaky", (1,), "succeeded", "after 1 retries"),
    ("quiet", (1, 2), "succeeded", 3),
    ("quiet_fail", ("x",), "failed", None),
    ("ignore", (), "ignored", None),
    ("reject", (), "rejected", None),
    ("unserialisable", (), "failed", None),
    ("die", ("last words",), "crashed", None),
    ("impatient", (), "timed_out", None),
    ("no.such.task", (), "unknown_task", None),
]


@pytest.fixture(
    scope="module",
    params=[pytest.param(FLAVOURS[0], marks=pytest.mark.ring(1)), *FLAVOURS[1:]],
    ids=lambda flavour: flavour.name,
)
def bench(
    request: pytest.FixtureRequest, valkey: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """A worker with Redis as its broker only."""
    store: Path = tmp_path_factory.mktemp("store") / "results.sqlite"
    # A process with Celery 5.3 makes the tables of its first database alone.
    SessionManager().session_factory(f"sqlite:///{store}").close()
    with running_worker(valkey, f"db+sqlite:///{store}", request.param) as running:
        yield running


@pytest.fixture(
    scope="module",
    params=[pytest.param(FLAVOURS[0], marks=pytest.mark.ring(1)), *FLAVOURS[1:]],
    ids=lambda flavour: flavour.name,
)
def rabbit_bench(request: pytest.FixtureRequest, rabbitmq_url: str) -> Iterator[Bench]:
    with running_worker(rabbitmq_url, "rpc://", request.param) as running:
        yield running


def riding(bench: Bench, sent: Sent) -> tuple[Receipt, JsonValue, dict[str, object]]:
    """The receipt and the result that a plain client finds, and Celery's whole answer."""

    def look() -> tuple[Receipt, JsonValue, dict[str, object]] | None:
        meta: dict[str, object] = bench.app.backend.get_task_meta(sent.task_id)
        receipt, result = unwrap_result(meta)
        return None if receipt is None else (Receipt.model_validate(receipt), result, meta)

    try:
        found = eventually(look, within=30, what=f"the receipt of {sent.task_id}")
    except AssertionError as missing:
        raise AssertionError(f"{missing}\n{tail(bench.log, 40)}") from None
    assert found is not None
    return found


@pytest.mark.parametrize(("task", "args", "state", "result"), OUTCOMES)
def test_receipt_rides_in_a_database(
    bench: Bench, valkey: str, task: str, args: tuple[object, ...], state: str, result: object
) -> None:
    """A client that reads the database backend finds the receipt in what is stored there."""
    sent = bench.send(task, *args)
    receipt, value, _ = riding(bench, sent)
    assert (receipt.state, receipt.result) == (state, result)
    assert receipt.task_id == sent.task_id
    if state == "succeeded":
        assert value == result
    with redis.Redis.from_url(valkey) as client:
        assert client.exists(stream_key(sent.run)) == 0


def test_error_and_traceback_are_still_there(bench: Bench) -> None:
    """A failure's own exception and traceback can be read beside the receipt."""
    receipt, _, meta = riding(bench, bench.send("fail", "no such film"))
    assert isinstance(meta["result"], ValueError)
    assert str(meta["result"]) == "no such film"
    assert isinstance(meta["traceback"], str)
    shown = plain_traceback(meta["traceback"])
    assert shown is not None
    assert shown.endswith("ValueError: no such film")
    assert receipt.error is not None
    assert receipt.error.message == "no such film"


def test_lines_of_a_killed_child_ride_too(bench: Bench) -> None:
    """What a killed child said comes with the failure that the main process stores."""
    receipt, _, _ = riding(bench, bench.send("die", "last words"))
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["last words"]


def test_rejection_keeps_its_lines(bench: Bench) -> None:
    """What a task said before it rejected its message comes with what the main process stores."""
    sent = bench.send("reject")
    riding(bench, sent)
    riding(bench, bench.send("empty"))  # by now the main process has stored what it stores
    receipt, _, _ = riding(bench, sent)
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["rejecting"]
    assert bench.spooled() == []


@pytest.mark.ring(2)
def test_time_limit_rides_too(bench: Bench) -> None:
    """A hard time limit, which Celery stores twice, leaves the receipt in what it stored last."""
    sent = bench.send("hang", "slow", time_limit=1)
    receipt, _, _ = riding(bench, sent)
    assert receipt.state == "timed_out"
    riding(bench, bench.send("empty"))
    assert riding(bench, sent)[0] == receipt


def test_revoked_rides_too(bench: Bench) -> None:
    """What came too late is told as expired."""
    late = datetime.now(timezone.utc) - timedelta(seconds=5)
    assert riding(bench, bench.send("add", 1, 2, expires=late))[0].state == "expired"


@pytest.mark.ring(2)
def test_long_log_does_not_break_the_store(bench: Bench) -> None:
    """A receipt behind a traceback is kept small enough for a database's text column."""
    receipt, _, meta = riding(bench, bench.send("long_story_and_die", 20_000))
    assert receipt.state == "crashed"
    assert isinstance(meta["traceback"], str)
    assert len(meta["traceback"].encode()) < 64 * 1024


def test_huge_result_is_stored_once(bench: Bench) -> None:
    """A result above the limit is not repeated in the receipt, and the client still gets it."""
    size = 2 * 1024 * 1024
    receipt, value, _ = riding(bench, bench.send("huge", size))
    assert receipt.result is None
    assert receipt.evidence == {"result_omitted": size + 2}
    assert value == "x" * size


def test_other_results_are_left_alone(bench: Bench) -> None:
    """A task that is not ours is stored as ever."""
    sent = bench.send("add", 1, 2, ours=False)
    assert bench.app.AsyncResult(sent.task_id).get(timeout=30) == 3
    assert bench.app.backend.get_task_meta(sent.task_id)["traceback"] is None


def test_no_receipt_was_lost(bench: Bench) -> None:
    """No signal handler of ours failed, and no receipt failed to be stored."""
    riding(bench, bench.send("empty"))
    log = bench.log.read_text()
    assert "Signal handler" not in log
    assert "was lost" not in log


@pytest.mark.ring(2)
@pytest.mark.rabbitmq
@pytest.mark.parametrize(("task", "args", "state", "result"), OUTCOMES)
def test_receipt_rides_over_rabbitmq(
    rabbit_bench: Bench, task: str, args: tuple[object, ...], state: str, result: object
) -> None:
    """A client that waits for ``rpc://`` results finds the receipt in the reply."""
    receipt, value, _ = riding(rabbit_bench, rabbit_bench.send(task, *args))
    assert (receipt.state, receipt.result) == (state, result)
    if state == "succeeded":
        assert value == result


@pytest.mark.ring(2)
@pytest.mark.rabbitmq
def test_time_limit_over_rabbitmq(rabbit_bench: Bench) -> None:
    """A hard time limit is told over RabbitMQ as well, with the lines of the killed child."""
    receipt, _, _ = riding(rabbit_bench, rabbit_bench.send("hang", "slow", time_limit=1))
    assert receipt.state == "timed_out"
    assert [line.rpartition(": ")[2] for line in receipt.log] == ["slow"]
