"""Receipts made by hand, runs in one call, and the store in memory."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import get_args

import pytest
from celery import Celery
from pydantic import ValidationError

from pytest_manifest import PlanBuilder, planning_fixture
from pytest_manifest.errors import ManifestError, PlanError, StackError
from pytest_manifest.manifest import write_manifest
from pytest_manifest.schema import Entry, ErrorInfo, Expectations, Header, State
from pytest_manifest.schema.stream_records import STREAM_FIELD
from pytest_manifest.schema.wire import arguments_sha256, json_sha256
from pytest_manifest.testing import MemoryStack, make_receipt, plan, run
from pytest_manifest.worker.backend_memory import MemoryBackend, MemoryStore
from tests.verdicts import evaluate

ENTRY = Entry(
    id="é", task="t.x", args=[1], kwargs={"a": [2]}, queue="q", expect=Expectations(result=3)
)


def test_a_made_receipt_is_judged_as_a_worker_s() -> None:
    """What was expected passes, and what was not fails."""
    good, bad = make_receipt(ENTRY, result=3), make_receipt(ENTRY, result=4)
    assert evaluate(ENTRY, good, attempt=1).verdict == "passed"
    assert evaluate(ENTRY, bad, attempt=1).verdict == "failed"


def test_a_made_receipt_is_honest() -> None:
    """Names, digests and times fit one another and the entry."""
    receipt = make_receipt(ENTRY, result={"b": 1, "a": 2}, runtime=2.0, wait=0.5)
    assert (receipt.entry, receipt.task, receipt.queue) == ("é", "t.x", "q")
    assert receipt.task_id.startswith(receipt.run[-8:])
    assert receipt.args_sha256 == arguments_sha256([1], {"a": [2]})
    assert receipt.result_sha256 == json_sha256({"a": 2, "b": 1})
    assert receipt.sent_at is not None
    assert receipt.started_at is not None
    assert receipt.finished_at is not None
    assert receipt.finished_at - receipt.started_at == timedelta(seconds=2)
    assert receipt.started_at - receipt.sent_at == timedelta(seconds=0.5)
    assert receipt.finished_at <= datetime.now(timezone.utc)
    assert receipt.executions == 1


@pytest.mark.parametrize(
    "error", [KeyError("item"), ErrorInfo(type="KeyError", message="'item'", traceback=None)]
)
def test_an_error_makes_it_failed(error: KeyError | ErrorInfo) -> None:
    """An exception or its description; it has no result then."""
    receipt = make_receipt(ENTRY, error=error)
    assert receipt.state == "failed"
    assert receipt.error == ErrorInfo(type="KeyError", message="'item'")
    assert receipt.result_sha256 is None


@pytest.mark.parametrize("state", get_args(State))
def test_every_state_can_be_made(state: State) -> None:
    """What a worker turned away has never begun; the others have run."""
    receipt = make_receipt(ENTRY, state=state)
    begun = state not in ("expired", "revoked", "rejected", "unknown_task")
    assert receipt.state == state
    assert (receipt.started_at is not None) == begun
    assert (receipt.runtime is not None) == begun


def test_further_fields_replace_what_was_made() -> None:
    """Any field of a receipt can be given; what is none is refused."""
    receipt = make_receipt(ENTRY, attempt=2, run="r-12345678", log=["a"], evidence={"rows": 3})
    assert (receipt.attempt, receipt.run, receipt.log) == (2, "r-12345678", ["a"])
    assert receipt.task_id.startswith("12345678-")
    assert receipt.evidence == {"rows": 3}
    with pytest.raises(ValidationError, match="colour"):
        make_receipt(ENTRY, colour="blue")


@planning_fixture("testing:chapters")
def chapters(builder: PlanBuilder, names: list[str], *, count: int = 2, prefix: str = "") -> None:
    """Plan so many of the names."""
    for name in names[:count]:
        builder.add("book.read", id=prefix + name, args=[name], timeout=5)


def test_a_planning_fixture_is_planned_without_pytest() -> None:
    """Fixtures come as values, options as on a command line or as values."""
    assert [one.id for one in plan(chapters, ["a", "b", "c"])] == ["a", "b"]
    entries = plan(chapters, ["a", "b", "c"], count="1", prefix="x-")
    assert entries == [Entry(id="x-a", task="book.read", args=["a"], timeout=5)]
    assert plan(chapters, []) == []


def test_a_plain_function_is_planned_too() -> None:
    """It need not be a fixture; what it cannot plan is refused as in a real plan."""

    def twice(builder: PlanBuilder) -> None:
        builder.add("t", id="a", after=["b"])

    with pytest.raises(ManifestError, match="'b'"):
        plan(twice)
    with pytest.raises(PlanError, match="unknown option 'colour'"):
        plan(twice, colour="blue")


def test_a_manifest_file_can_be_run(tmp_path: Path) -> None:
    """Its verdicts come back by id, in its order, and nothing is left beside it."""
    entries = [Entry(id=name, task="up", args=[name]) for name in ("b", "a")]
    manifest = write_manifest(tmp_path / "m.jsonl", Header(), entries)
    with MemoryStack(tasks={"up": str.upper}) as stack:
        settled = run(manifest, stack)
    assert list(settled) == ["b", "a"]
    assert [one.receipt and one.receipt.result for one in settled.values()] == ["B", "A"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]


def test_a_run_that_cannot_be_made_says_why() -> None:
    """No entries, an id twice, or a stack that does not run."""
    with MemoryStack() as stack:
        with pytest.raises(ManifestError, match="no entries"):
            run([], stack)
        with pytest.raises(ManifestError, match="used"):
            run([Entry(id="a", task="t"), Entry(id="a", task="t")], stack)
    with pytest.raises(StackError, match="does not run"):
        run([Entry(id="a", task="t")], stack)


def test_the_stream_is_read_from_a_place_on() -> None:
    """As Redis does it: behind an id, so many, and nothing where there is nothing."""
    store = MemoryStore()
    ids = [store.xadd("s", {STREAM_FIELD: text}).decode() for text in ("a", "b", b"c")]
    field = STREAM_FIELD.encode()
    assert store.xread({"s": ids[0]}, count=1) == [[b"s", [(ids[1].encode(), {field: b"b"})]]]
    assert store.xread({"s": ids[2], "none": "0"}) == []
    assert [row[1][field] for row in store.xrange("s", min=ids[1])] == [b"b", b"c"]
    assert [row[1][field] for row in store.xrange("s", max=ids[0])] == [b"a"]
    assert [row[1][field] for row in store.xrange("s", min="2-1")] == [b"c"]
    assert len(store.xrange("s", count=2)) == 2
    assert store.xrange("none") == []
    assert store.expire("s", 60)
    assert not store.expire("none", 60)
    store.clear()
    assert store.xrange("s") == []


def test_a_reader_waits_for_a_first_record() -> None:
    """Another thread's record ends the waiting, long before the time is over."""
    store = MemoryStore()
    timer = threading.Timer(0.05, lambda: store.xadd("s", {STREAM_FIELD: b"x"}))
    timer.start()
    assert store.xread({"s": "0"}, block=60_000)
    timer.join()
    assert store.xread({"t": "0"}, block=1) == []


def test_results_are_kept_and_counted() -> None:
    """What Celery asks of a store that keeps values by key."""
    app = Celery("kept", set_as_current=False, fixups=())
    backend = MemoryBackend(app=app, url="memory://")
    backend.set(b"testing-key", "text")
    try:
        assert backend.mget([b"testing-key", b"testing-none"]) == [b"text", None]
        assert [backend.incr(b"testing-n"), backend.incr(b"testing-n")] == [1, 2]
        assert backend.as_uri() == "memory://"
    finally:
        backend.delete(b"testing-key")
        backend.delete(b"testing-n")
    assert backend.get(b"testing-key") is None
