"""One result read from every kind of store, with and without our worker: the same JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

import celery
import pytest
from pydantic import JsonValue

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.stream import StreamReader, has_stream
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.schema import Entry, Expectations, Receipt
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.urls import StackAddress
from tests.live.broker_app import app
from tests.live.broker_support import APP, address, attempts, database, publishing, stock_worker
from tests.support import eventually
from tests.verdicts import evaluate, lie_of

pytestmark = pytest.mark.live

KINDS: Final[dict[str, JsonValue]] = {
    "at": {"__type__": "datetime", "__value__": "2026-11-24T15:00:00+00:00"},
    "day": {"__type__": "date", "__value__": "2026-11-24"},
    "price": {"__type__": "decimal", "__value__": "1.10"},
    "key": {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000001"}},
    "text": {"__type__": "bytes", "__value__": "bytes"},
    "raw": {"__type__": "base64", "__value__": "/w=="},
    "pair": [1, [2.5, None]],
    "share": {"__type__": "fraction", "__value__": "1/3"},
    "7": True,
}
RESULTS: Final[dict[str, JsonValue]] = {
    "kinds": KINDS,
    "own_mark": {"__type__": "nobody's", "__value__": [1]},
    "not_a_number": None,
}
WORK: Final = [
    Entry(id=name, task=f"stock.{name}", expect=Expectations(result=result))
    for name, result in RESULTS.items()
]
INSTRUMENTED: Final = ("-I", "pytest_manifest.worker")


def receipts_of(where: StackAddress, sent: list[Attempt]) -> dict[str, Receipt]:
    """What a run makes of all that there is, by entry."""
    key = stream_key(sent[0].run)
    reader = StreamReader(where.backend_url, key) if has_stream(where.backend_url) else None
    awaited = {
        a.task_id: PendingAttempt(a.run, a.entry, a.number, a.task_id, sent=0.0) for a in sent
    }
    found: dict[str, Receipt] = {}
    with closing(ReceiptCollector(reader, ResultReader(where))) as gatherer:

        def look() -> bool:
            sip = gatherer.poll_all({i: a for i, a in awaited.items() if a.entry.id not in found})
            found.update({receipt.entry: receipt for _, _, receipt in sip.finals})
            return len(found) == len(sent)

        eventually(look, within=60, what="all receipts")
    return found


@pytest.fixture
def serialized() -> Iterator[Callable[[str], dict[str, str]]]:
    """Have this side read results by a serializer; gives the workers' environment for it."""

    def by(serializer: str) -> dict[str, str]:
        app.conf.update(result_serializer=serializer)
        return {"TEST_RESULT_SERIALIZER": serializer}

    yield by
    app.conf.update(result_serializer="json")


@pytest.mark.parametrize(
    ("store", "serializer", "options"),
    [
        ("redis", "json", ()),
        ("redis", "json", INSTRUMENTED),
        ("sqlite", "json", ()),
        ("sqlite", "pickle", INSTRUMENTED),
        ("rpc", "json", ()),
        ("rpc", "json", INSTRUMENTED),
    ],
)
def test_results_are_the_json_that_kombu_made(
    valkey: str,
    tmp_path: Path,
    serialized: Callable[[str], dict[str, str]],
    store: str,
    serializer: str,
    options: tuple[str, ...],
) -> None:
    """Dates, decimals, UUIDs, bytes and types that we do not know: expected in one way alone."""
    broker = database(valkey, 9)
    stores = {"redis": None, "sqlite": f"db+sqlite:///{tmp_path}/results.db", "rpc": "rpc://"}
    where = address(broker, stores[store], app=APP)
    sent = attempts(WORK)
    env = serialized(serializer)
    with publishing(where, stream=stream_key(sent[0].run)) as publisher:
        publisher.publish(sent, datetime.now(timezone.utc))
        with stock_worker(where, tmp_path, env=env, options=options):
            receipts = receipts_of(where, sent)

    for attempt in sent:
        receipt = receipts[attempt.entry.id]
        assert receipt.source == ("worker" if options else "backend")
        told = lie_of(
            attempt.entry,
            receipt,
            run=attempt.run,
            task_id=attempt.task_id,
            attempt=attempt.number,
            sent_at=None,
        )
        assert told is None
    verdicts = {a.entry.id: evaluate(a.entry, receipts[a.entry.id], attempt=1) for a in sent}
    kinds = {entry: verdict.verdict for entry, verdict in verdicts.items()}
    no_number = "its result is not JSON" in verdicts["not_a_number"].sentence
    assert (kinds.pop("not_a_number"), no_number) == ("unknown", True)
    if celery.VERSION < (5, 7) and store == "sqlite" and not options:
        # Celery pickles it: of a type that only the worker registers this side knows no JSON.
        no_json = "its result is not JSON" in verdicts["kinds"].sentence
        assert (kinds.pop("kinds"), no_json) == ("unknown", True)
    assert set(kinds.values()) == {"passed"}, verdicts


HANDED_ON: Final = [
    *(
        Entry(id=how, task="stock.replaced", args=[how], expect=Expectations(result=4))
        for how in ("task", "chain")
    ),
    *(Entry(id=how, task="stock.replaced", args=[how]) for how in ("group", "chord")),
    Entry(id="retry", task="stock.patient", args=[1.5], timeout=0.5),
]


@pytest.mark.parametrize("broker", ["redis", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def test_jobs_that_go_on_elsewhere_where_results_are_replies(
    request: pytest.FixtureRequest, tmp_path: Path, broker: str
) -> None:
    """What a job was replaced by, and its next try, reply to who waits for the job; from plain
    workers a replacement's reply goes to the worker. Celery has no chords with these results, and
    makes one of a group: that is what the job failed of."""
    fixture = "valkey" if broker == "redis" else "rabbitmq_url"
    url: str = request.getfixturevalue(fixture)
    where = address(database(url, 9) if broker == "redis" else url, "rpc://", app=APP)
    sent = attempts(HANDED_ON)
    with publishing(where, stream="") as publisher:
        publisher.publish(sent, datetime.now(timezone.utc))
        with stock_worker(where, tmp_path, options=INSTRUMENTED):
            receipts = receipts_of(where, sent)

    verdicts = {a.entry.id: evaluate(a.entry, receipts[a.entry.id], attempt=1) for a in sent}
    kinds = {entry: verdict.verdict for entry, verdict in verdicts.items()}
    assert {name: kinds.pop(name) for name in ("group", "chord")} == {
        "group": "failed",
        "chord": "failed",
    }
    assert all("NotImplementedError" in verdicts[name].sentence for name in ("group", "chord"))
    assert set(kinds.values()) == {"passed"}, verdicts
