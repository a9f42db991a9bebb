"""Records and results that nobody expected, among those of jobs that went well: each by itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Final

import pytest
from celery import Celery
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_manifest.broker.attempt import attempt_of
from pytest_manifest.ledger import Ledger
from pytest_manifest.manifest import write_manifest
from pytest_manifest.results.backend_results import ResultReader, parse_result
from pytest_manifest.results.collector import ReceiptCollector, backend_receipt
from pytest_manifest.results.records import LOGGED, ReadErrors
from pytest_manifest.results.stream import StreamReader
from pytest_manifest.run.dispatch import dispatch_run
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.run.settings import RunSettings
from pytest_manifest.schema import Entry, Header, Receipt
from pytest_manifest.schema.wire import stream_key
from pytest_manifest.testing import MemoryStack
from pytest_manifest.urls import StackAddress
from pytest_manifest.verdict import case
from pytest_manifest.worker.backend_memory import stores
from tests.reasons import phrase
from tests.reports import NoResults, add_receipts, add_starts
from tests.rings import examples
from tests.unit.ledger_support import INFO
from tests.verdicts import completed, evaluate, lie_of

RUN: Final = INFO.run
KEY: Final = stream_key(RUN)
ENTRY: Final = Entry(id="a", task="t")
LEVELS: Final = 500_000
"""Python 3.14 reads JSON of 50,000 levels."""
DEEP: Final = '{"a":' * LEVELS + "1" + "}" * LEVELS
FIRST_DAY: Final = datetime(1, 1, 1, tzinfo=timezone.utc)
TODAY: Final = datetime.now(timezone.utc)
FIRST: Final = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
YEAR_1: Final = "0001-01-01T00:00:00+14:00"
STARTED: Final[dict[str, Any]] = {
    "kind": "started",
    "run": RUN,
    "entry": "a",
    "attempt": 1,
    "task_id": "t-a",
    "task": "t",
    "execution": "x1",
    "worker": "w@h",
    "host": "h",
    "pid": 7,
    "started_at": "2026-11-24T15:00:01+00:00",
    "retries": 0,
}
RECEIPT: Final[dict[str, Any]] = {
    "run": RUN,
    "entry": "a",
    "attempt": 1,
    "task_id": "t-a",
    "task": "t",
    "state": "succeeded",
    "executions": 1,
    "runtime": 0.5,
    "started_at": "2026-11-24T15:00:01+00:00",
}
HOSTILE: Final[list[Any]] = [
    *(2**70, -(2**70), -5, 10**400, 1e308, -1.0, True, None, "", "x", "\ud800", "a\x00b", YEAR_1),
    *("9999-12-31T23:59:59-14:00", "2026-11-24T15:00:00", [], {}, [[]], {"\udfff": 1}, "9" * 5_000),
    json.loads("[" * 150 + "]" * 150),
]
RECORDS: Final = [
    *(STARTED | {"pid": 2**70}, STARTED | {"retries": 2**70, "execution": "x2"}),
    *(STARTED | {"started_at": YEAR_1}, STARTED | {"worker": "\ud800", "execution": "\udfff"}),
    *(STARTED | {"task_id": "\ud800"}, {"kind": "finished", "execution": "x", "receipt": 3}),
]


def finished(**fields: Any) -> dict[str, Any]:
    return {"kind": "finished", "execution": "x1", "receipt": {**RECEIPT, **fields}}


def put(*records: object, key: str = KEY) -> None:
    """Write records to the stream; text as it stands."""
    for record in records:
        text = record if isinstance(record, str) else json.dumps(record)
        stores.now.xadd(key, {"r": text})


_FIELDS = st.dictionaries(
    st.sampled_from([*STARTED, *RECEIPT, "sent_at", "wait", "cpu", "evidence", "result", "error"]),
    st.sampled_from(HOSTILE),
    max_size=3,
)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger, which keeps whatever it is given."""
    with Ledger.create(tmp_path_factory.mktemp("ledger") / "run.ledger", INFO) as made:
        yield made


@settings(max_examples=examples(60))
@given(
    changes=st.lists(st.tuples(st.sampled_from([STARTED, None]), _FIELDS), max_size=4),
    text=st.sampled_from(["deep", "", "[]", "\x00", '{"kind": "finished"}']),
)
def test_no_record_stops_what_comes_behind_it(
    ledger: Ledger, changes: list[Any], text: str
) -> None:
    """All are read, kept and judged, or passed over; the good one at the end always is there."""
    stores.now.clear()
    bad = [finished(**more) if kind is None else {**kind, **more} for kind, more in changes]
    # By its name: Hypothesis warns of an example that takes 30 kB to write.
    put(*bad, DEEP if text == "deep" else text, STARTED, finished())
    flaws = ReadErrors()
    awaited = {"t-a": PendingAttempt(RUN, ENTRY, 1, "t-a", sent=0.0)}
    reader = StreamReader("memory://", KEY, flaws=flaws)
    with closing(ReceiptCollector(reader, NoResults(), flaws=flaws)) as gatherer:
        sip = gatherer.poll_all(awaited)
    with ledger.transaction():
        add_starts(ledger, sip.starts)
        add_receipts(ledger, sip.finals)
    starts, kept = ledger.events.starts("t-a"), ledger.events.receipts("t-a")
    assert flaws.count >= 1
    assert any(start.pid == 7 for start in starts)
    assert kept[-1][1] == Receipt.model_validate(RECEIPT)
    for _, _, receipt in sip.finals:
        facts = {"run": RUN, "task_id": "t-a", "attempt": 1}
        if not lie_of(ENTRY, receipt, sent_at=datetime.now(timezone.utc), **facts):  # type: ignore[arg-type]  # the names are right
            evaluate(ENTRY, completed(receipt, starts), attempt=1)
    stores.now.clear()


@given(
    fields=st.dictionaries(
        st.sampled_from(["status", "result", "traceback", "date_done", "worker", "retries"]),
        st.sampled_from([*HOSTILE, FIRST, b"\xff", ValueError("x")]),
        max_size=4,
    ),
    status=st.sampled_from(["SUCCESS", "FAILURE", "REVOKED"]),
)
def test_no_plain_result_is_more_than_that_of_its_job(fields: dict[str, Any], status: str) -> None:
    """What it says of its state is believed, and nothing else in it can do any harm."""
    result = parse_result({"status": status, "result": 1, **fields})
    if result is not None:
        receipt = backend_receipt("t-a", PendingAttempt(RUN, ENTRY, 1, "t-a", sent=0.0), result)
        assert receipt.model_dump_json()
        assert evaluate(ENTRY, receipt, attempt=1).entry == "a"


@pytest.mark.parametrize(
    ("sent_at", "times", "lie"),
    [
        (None, {"sent_at": FIRST_DAY}, ""),  # began 2,000 years later: nothing is against it
        (TODAY, {"sent_at": FIRST_DAY}, "it is of a message sent at "),
        (TODAY, {"started_at": FIRST_DAY}, "it says that the job started at "),
        (FIRST_DAY, {}, ""),
    ],
)
def test_a_late_receipt_of_the_year_1_is_told_as_old(
    sent_at: datetime | None, times: dict[str, datetime], lie: str
) -> None:
    """Reckoned with, it would be before all time."""
    receipt = Receipt.model_validate(RECEIPT).model_copy(update=times)
    why = lie_of(ENTRY, receipt, run=RUN, task_id="t-a", attempt=1, sent_at=sent_at)
    said = phrase(why)
    assert said.startswith(lie)
    assert bool(said) == bool(lie)


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("sent_at", "0001-01-01T00:00:00+00:00", "a time of the years 1970 to 9998"),
        ("finished_at", "9998-12-31T23:59:59-14:00", "a time of the years 1970 to 9998"),
        ("pid", 2**53, "less than or equal to 9007199254740991"),
        ("max_rss", 10**400, "max_rss"),
        ("runtime", 1e308, "less than or equal to 1000000000000"),
    ],
)
def test_figures_that_nothing_can_have_make_no_receipt(field: str, value: object, why: str) -> None:
    """They would only break what is done with them later: with a database, or with a clock."""
    with pytest.raises(ValueError, match=why):
        Receipt.model_validate(RECEIPT | {field: value})


def test_a_row_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """Nonsense in one row of a database: its state is known, and the others are as ever."""
    url = f"db+sqlite:///{tmp_path}/results.db"
    ids = [f"0123abcd-{n}" for n in range(9)]
    app = Celery("rows", backend=url, set_as_current=False)
    for number, task_id in enumerate(ids):
        app.backend.store_result(task_id, {"n": number}, "SUCCESS")
    with closing(sqlite3.connect(tmp_path / "results.db")) as db, db:
        for task_id, column, value in (
            (ids[2], "result", b"no pickle"),
            (ids[4], "date_done", "yesterday"),
            (ids[6], "status", "\x00"),
        ):
            db.execute(
                f"UPDATE celery_taskmeta SET {column} = ? WHERE task_id = ?",
                (value, task_id),
            )
    flaws = ReadErrors()
    with closing(
        ResultReader(StackAddress("memory://", url, None, is_private=False), flaws)
    ) as reader:
        for _ in range(2):  # looking again counts nothing twice
            found = reader.read(ids)
    assert set(found) == set(ids) - {ids[6]}
    assert {result.state for result in found.values()} == {"succeeded"}
    assert [found[i].result for i in ids if i in found and i not in (ids[2], ids[4])] == [
        {"n": n} for n in (0, 1, 3, 5, 7, 8)
    ]
    assert all("cannot be read" in (found[i].no_json or "") for i in (ids[2], ids[4]))
    assert flaws.count == 2


def test_bad_records_are_counted_and_the_log_stays_short() -> None:
    """One sentence at the end, whatever their number."""
    findings = ["something else"]
    flaws = ReadErrors(findings)
    for number in range(3 * LOGGED):
        flaws.add(f"record {number}", "half a surrogate: \ud800")
        flaws.add(f"record {number}", "again")
    said = f"{3 * LOGGED} records or results could not be read and counted for nothing; see the log"
    assert findings == ["something else", said]


def test_a_run_goes_on_past_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every job passes; the one that the judge did not foresee is unknown, and says why."""
    entries = [Entry(id=f"e-{n}", task="contract.add", args=[n, 1]) for n in range(6)]
    odd, real = entries[3].id, case.complete_receipt

    def fails(receipt: Any, *more: Any) -> Any:
        if receipt.entry == odd:
            raise ZeroDivisionError("nobody foresaw this")
        return real(receipt, *more)

    monkeypatch.setattr("pytest_manifest.verdict.case.complete_receipt", fails)
    with MemoryStack("tests.contract.app:app") as stack:
        address = stack.wait_broker(30)
        manifest = write_manifest(tmp_path / "m.jsonl", Header(), entries)
        settings = RunSettings(folder=tmp_path / "runs", deadline=60)
        run = dispatch_run(manifest, manifest.ids, address, settings)
        run.prepare(expected_workers=1)
        key = stream_key(run.info.run)
        mine = {e.id: attempt_of(run.info.run, e, 1, n).task_id for n, e in enumerate(entries)}
        put(*RECORDS, DEEP, *(r | {"task_id": mine["e-0"]} for r in RECORDS[:4]), key=key)
        put(finished(sent_at=YEAR_1, task_id=mine["e-1"]), key=key)
        try:
            run.start()
            run.ended.wait()
        finally:
            run.stop()
    assert run.error is None
    with run.read() as ledger:
        settled = {one.verdict.entry: one.verdict for one in ledger.queries.all_verdicts()}
    kinds = {name: verdict.verdict for name, verdict in settled.items()}
    # Made-up starts of e-0 stand beside its own, so that one is not known from the other.
    assert kinds.pop("e-0") in ("forged", "duplicated", "quarantined")
    assert kinds == {f"e-{n}": "passed" for n in range(1, 6)} | {odd: "unknown"}
    assert "ZeroDivisionError: nobody foresaw this" in settled[odd].sentence
    assert any("could not be read and counted for nothing" in one for one in run.warnings)
