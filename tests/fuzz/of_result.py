"""A result as any backend may hold it: of its state and its job, or passed over with a sentence."""

from __future__ import annotations

from functools import cache
from typing import Any

from celery import Celery

from pytest_manifest.results.backend_results import (
    STATE_OF,
    KeyValueSource,
    ResultReader,
    leave_marks,
    parse_result,
)
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.results.records import ReadErrors, ReceiptBatch
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.urls import StackAddress
from pytest_manifest.worker.backend_memory import MemoryBackend, stores
from tests.fuzz.lines import foreign, objects
from tests.fuzz.made_run import RUN, TASK_ID, made_manifest
from tests.fuzz.oracles import expect, expect_sentence
from tests.fuzz.verdicts import expect_verdict
from tests.verdicts import judged

MOST = 20


@cache
def _backend() -> MemoryBackend:
    app = Celery("fuzz", set_as_current=False)
    backend = MemoryBackend(app=app, url="memory://")
    leave_marks(backend)
    return backend


def check(data: bytes) -> None:
    """Read the whole as one stored result, and each line as another one."""
    for raw in [data, *data.split(b"\n")[:MOST]]:
        _stored(raw)
    for document in objects(data)[:MOST]:
        meta = foreign(document)
        if isinstance(meta, dict):
            _parsed(meta)


def _stored(raw: bytes) -> None:
    """Read bytes of a store, through Celery's own decoder."""
    flaws = ReadErrors()
    stores.now.set(_backend().get_key_for_task(TASK_ID).decode(), raw)
    reader = ResultReader(StackAddress("memory://", "memory://", None, is_private=True), flaws)
    reader._source = KeyValueSource(_backend(), flaws)
    found = reader.read([TASK_ID])
    expect(set(found) <= {TASK_ID}, "a result of another job", found)
    for why in flaws.results.values():
        expect(len(why) <= 300, "a reason of too many characters", len(why))
    if found:
        _judged(_entry(), _receipt(flaws, found[TASK_ID]))


def _parsed(meta: dict[str, Any]) -> None:
    """Read a result of a store that gives Python's objects: of an SQL database, say."""
    try:
        result = parse_result(meta)
    except Exception:  # what an object of theirs raises is noted by the reader
        expect("Unprintable" in repr(meta), "an error that no object of theirs raised", meta)
        return
    final = str(meta.get("status")) in STATE_OF
    expect((result is not None) == final, "a state that is none", meta)
    if result is not None:
        receipt = _receipt(ReadErrors(), result)
        if receipt is not None and receipt.source == "backend":
            expect(receipt.state == result.state, "another state", result, receipt)
        _judged(_entry(), receipt)


def _entry() -> Entry:
    return made_manifest()["a"]


def _receipt(flaws: ReadErrors, result: Any) -> Receipt | None:
    collector = ReceiptCollector(None, ResultReader.__new__(ResultReader), flaws=flaws)
    job = PendingAttempt(RUN, _entry(), 1, TASK_ID, sent=0.0)
    batch = ReceiptBatch()
    collector._add_result(batch, TASK_ID, job, result)
    receipt = next((one for _, _, one in batch.finals), None)
    expect(receipt is not None or flaws.count, "passed over without a word", result)
    return receipt


def _judged(entry: Entry, receipt: Receipt | None) -> None:
    if receipt is None:
        return
    again = Receipt.model_validate_json(receipt.model_dump_json())
    expect(again == receipt, "another receipt after it was stored", receipt, again)
    found = judged(entry, [(None, receipt)], [], None, run=RUN, task_id=TASK_ID)
    expect_verdict(entry, *found)
    expect_sentence(found[0].sentence, 4_000)
