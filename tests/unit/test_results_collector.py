"""Gathering, with a stream and a result store that say what the test wants."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

import pytest
from redis import Redis, SSLConnection

from pytest_manifest.broker.bounded import BoundedCaller, PeerTimeoutError
from pytest_manifest.errors import StackError
from pytest_manifest.results.backend_results import BackendResult, ResultReader
from pytest_manifest.results.collector import SWEEP_STOCK, ReceiptCollector
from pytest_manifest.results.stream import StreamReader, redis_url
from pytest_manifest.run.connections import OUTAGE_LIMIT, OUTAGE_TOLD, FailureWindow
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.schema import Entry
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.worker.backend_memory import stores

T = TypeVar("T")

RUN = "20261124T150000-0123abcd"
AWAITED = {"t-a": PendingAttempt(RUN, Entry(id="a", task="t"), 1, "t-a", sent=0.0)}


def check_trimming(url: str, client: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of more records than are taken out at once, read by one reader after another."""
    monkeypatch.setattr("pytest_manifest.results.stream.TRIM_BATCH", 3)
    key = "manifest:0123abcd:trimmed"
    store = cast("Redis", client)

    def add(count: int) -> None:
        for _ in range(count):
            store.xadd(key, {STREAM_FIELD: json.dumps({"kind": "x"})})

    def left() -> int:
        return len(store.xrange(key) or ())

    first = StreamReader(url, key)
    first.begin(60)
    add(7)
    assert len(first.read()) == 7
    assert left() == 8
    first.trim()
    assert (left(), first.is_intact()) == (1, True)
    add(8)
    assert len(first.read()) == 8  # and its process dies before it has taken them out
    add(2)
    sparing = StreamReader(url, key, position=first.position, keeps_records=True)
    sparing.trim()
    assert left() == 11
    second = StreamReader(url, key, position=first.position)
    for _ in range(5):
        second.trim()
    assert (left(), second.is_intact()) == (3, True)
    assert len(second.read()) == 2
    second.trim()
    assert (left(), second.is_intact()) == (1, True)
    for reader in (first, sparing, second):
        reader.close()


class FakeStream:
    """Hands out prepared batches, then nothing."""

    position = "9-0"

    def __init__(self, *batches: Sequence[Mapping[str, object]]) -> None:
        self.batches = list(batches)

    def read(self, block_ms: int = 0) -> Sequence[Mapping[str, object]]:
        return self.batches.pop(0) if self.batches else []

    def trim(self) -> None: ...

    def close(self) -> None: ...


class FakeResults:
    """A plain result store with these results."""

    def __init__(self, results: dict[str, BackendResult]) -> None:
        self.results = results
        self.handed: list[str] = []

    def read(self, task_ids: Sequence[str]) -> dict[str, BackendResult]:
        return {i: r for i, r in self.results.items() if i in task_ids}

    def discard(self, task_ids: Iterable[str]) -> None:
        self.handed = [*self.handed, *task_ids]

    def renewed(self) -> FakeResults:
        return self

    def close(self) -> None: ...


def gatherer(stream: FakeStream, results: dict[str, BackendResult]) -> ReceiptCollector:
    return ReceiptCollector(
        cast("StreamReader", stream), cast("ResultReader", FakeResults(results))
    )


def finished(**fields: object) -> dict[str, object]:
    receipt = {"run": RUN, "entry": "a", "attempt": 1, "task_id": "t-a", "task": "t"}
    receipt |= {"state": "succeeded", "runtime": 0.5} | fields
    return {"kind": "finished", "execution": "x1", "receipt": receipt}


def test_a_receipt_in_the_stream_goes_before_the_plain_result() -> None:
    """Even where it stands behind more records than one reading brings."""
    other = {"kind": "a newer worker's"}
    stream = FakeStream([other, other], [other], [finished()])
    sip = gatherer(stream, {"t-a": BackendResult(state="succeeded")}).poll(AWAITED, 0)
    ((task_id, execution, receipt),) = sip.finals
    assert (task_id, execution, receipt.runtime) == ("t-a", "x1", 0.5)


def test_a_stream_that_breaks_off_is_not_read_to_its_end() -> None:
    """What was read counts; that there may be more is said."""

    class BreaksOff(FakeStream):
        def read(self, block_ms: int = 0) -> Sequence[Mapping[str, object]]:
            if not self.batches:
                raise StackError("the store is away")
            return super().read(block_ms)

    collector = gatherer(BreaksOff([finished()]), {})
    batch = collector.poll_all(AWAITED)
    assert [one[0] for one in batch.finals] == ["t-a"]
    assert str(batch.cut) == "the store is away"
    with pytest.raises(StackError, match="the store is away"):
        collector.poll_all(AWAITED)
    assert gatherer(FakeStream([finished()]), {}).poll_all(AWAITED).cut is None


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "finished", "execution": "x"},
        {"kind": "started", "task_id": 3},
        finished(state="no such state"),
        finished(result=float("nan")),
    ],
)
def test_a_malformed_record_is_passed_over(bad: Mapping[str, object]) -> None:
    """The plain result still gives the job its receipt, and the others are not touched."""
    sip = gatherer(FakeStream([bad]), {"t-a": BackendResult(state="failed")}).poll(AWAITED, 0)
    ((_, _, receipt),) = sip.finals
    assert (receipt.state, receipt.source) == ("failed", "backend")


def test_a_malformed_receipt_inside_a_result_is_passed_over() -> None:
    """What the result store says by itself is used instead."""
    wrapped = BackendResult(state="succeeded", result=7, receipt={"state": "?"})
    sip = gatherer(FakeStream(), {"t-a": wrapped}).poll_all(AWAITED)
    ((_, _, receipt),) = sip.finals
    assert (receipt.state, receipt.result, receipt.source) == ("succeeded", 7, "backend")


def test_an_outage_ends_with_the_first_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two short outages, hours apart, are not one long one."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    outage = FailureWindow()
    assert not outage.expired()
    clock[0] = OUTAGE_LIMIT + 1
    assert outage.expired()
    outage.close()
    assert not outage.expired()


def test_an_outage_is_told_at_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first failure is, and another one; the same again only after a while."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    outage = FailureWindow()
    told = []
    for clock[0], failure in ((0, "a"), (1, "a"), (2, "b"), (3, "b"), (2 + OUTAGE_TOLD, "b")):
        told.append(outage.is_news(failure))
    assert told == [True, False, True, False, True]
    outage.expired()
    assert outage.close()
    assert outage.is_news("b"), "it is another outage"


def test_without_a_stream_nothing_tells_whether_the_store_is_intact() -> None:
    """There is nothing to mark, and None is neither yes nor no."""
    gatherer = ReceiptCollector(None, cast("ResultReader", FakeResults({})))
    gatherer.begin(60)
    assert gatherer.is_intact() is None


def test_a_stream_in_memory_tells_as_one_in_redis_does() -> None:
    """Its mark is no record, and is gone when the store is cleared."""
    stream = StreamReader("memory://", "manifest:0123abcd:evidence")
    gatherer = ReceiptCollector(stream, cast("ResultReader", FakeResults({})))
    assert gatherer.is_intact() is False
    gatherer.begin(60)
    assert gatherer.is_intact() is True
    assert stream.read() == []
    stores.now.clear()
    assert gatherer.is_intact() is False


class Unanswered:
    """Gives every call its answer, but for the next one where it is told so."""

    def __init__(self) -> None:
        self.breaks_off = False

    def call(self, call: Callable[[], T]) -> T:
        if self.breaks_off:
            self.breaks_off = False
            raise PeerTimeoutError("the store does not answer")
        return call()


def test_a_stream_that_is_read_anew_is_so_by_other_connections() -> None:
    """Those are opened where the store has not answered in time."""
    key, caller = "manifest:0123abcd:anew", Unanswered()
    stream = StreamReader("memory://", key, position=f"{10**13}-0")
    results = cast("ResultReader", FakeResults({}))
    gatherer = ReceiptCollector(stream, results, cast("BoundedCaller", caller))
    store = cast("Redis", stores.now)
    store.xadd(key, {STREAM_FIELD: json.dumps(finished())})
    assert gatherer.poll(AWAITED, 0).finals == []
    assert gatherer.is_intact() is False
    caller.breaks_off = True
    with pytest.raises(PeerTimeoutError):
        gatherer.poll(AWAITED, 0)
    assert [task_id for task_id, _, _ in gatherer.poll(AWAITED, 0).finals] == ["t-a"]
    stores.now.clear()


def test_what_was_read_is_taken_out_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when that is asked for; the mark stays, and so does what was not read."""
    check_trimming("memory://", stores.now, monkeypatch)
    stores.now.clear()


def test_the_mark_says_nothing_of_the_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """While no worker has written to the stream, plain results are looked at often."""
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    stream = StreamReader("memory://", "manifest:0123abcd:mark")
    gatherer = ReceiptCollector(stream, cast("ResultReader", FakeResults({})))
    gatherer.begin(60)
    for _ in range(2):
        gatherer.poll(AWAITED, 0)
        clock[0] += 1.5 * SWEEP_STOCK
    results = FakeResults({"t-a": BackendResult(state="succeeded")})
    monkeypatch.setattr(gatherer, "_results", results)
    assert len(gatherer.poll(AWAITED, 0).finals) == 1
    stores.now.clear()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("rediss://h/1?ssl_cert_reqs=CERT_NONE", "rediss://h/1?ssl_cert_reqs=none"),
        (
            "valkeys://h?a=%2Fb&ssl_cert_reqs=CERT_REQUIRED",
            "rediss://h?a=%2Fb&ssl_cert_reqs=required",
        ),
        ("rediss://h/1?ssl_cert_reqs=optional", "rediss://h/1?ssl_cert_reqs=optional"),
        ("redis+socket:///tmp/s?virtual_host=1", "unix:///tmp/s?db=1"),
        ("redis://:p%40w@h:1/0", "redis://:p%40w@h:1/0"),
    ],
)
def test_result_store_urls_in_celerys_words(given: str, expected: str) -> None:
    """redis-py names how certificates are checked, and a database, otherwise; the rest stays."""
    assert redis_url(given) == expected


def test_the_client_takes_celerys_word_for_no_certificate_check() -> None:
    """As the result backend does, so that one URL serves both."""
    stream = StreamReader("rediss://h/1?ssl_cert_reqs=CERT_NONE", "k")
    connection = stream._client.connection_pool.make_connection()
    assert isinstance(connection, SSLConnection)
    assert (connection.cert_reqs, connection.check_hostname) == (ssl.CERT_NONE, False)
    stream.close()
