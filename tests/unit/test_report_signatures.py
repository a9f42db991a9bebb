"""What a worker signs holds wherever it goes, and for nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_manifest import signing as keys
from pytest_manifest.manifest.receipts import receipt_line
from pytest_manifest.manifest.writer import dump_document
from pytest_manifest.results.records import ReceiptBatch, add_record
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.stream_records import FILLABLE, receipt_bytes, record_bytes
from pytest_manifest.schema.wire import parse_moment
from pytest_manifest.verdict.signatures import (
    CHANGED_REST,
    CHANGED_RESULT,
    OF_ANOTHER,
    UNSIGNED,
    UNTRUSTED,
    ReportSignatures,
)
from pytest_manifest.worker import signing
from tests.forgeries.reports import TASK, TRUE, Fields, Job
from tests.reports import started
from tests.verdicts import completed

SENT_AT: Final = "2026-11-24T15:00:00.000000+00:00"
JOB: Final = Job("20261124T150000-0badcafe", "a", 1, "t-a", SENT_AT, "s", 7)
ENTRY: Final = Entry.model_validate(
    {"id": "a", "task": TASK, "kwargs": {"n": 7}, "expect": {"result": {"n": 7}}}
)
PRIVATE, PUBLIC = keys.generate()
OTHERS: Final[dict[str, object]] = {
    "run": "20261124T150000-0badcaff",
    "entry": "b",
    "attempt": 2,
    "task_id": "t-b",
    "task": "other.work",
    "state": "failed",
    "error": {"type": "E", "message": "m"},
    "worker": "x@h",
    "host": "x",
    "pid": 78,
    "queue": "other",
    "sent_at": "2026-11-24T15:00:00.000001+00:00",
    "received_at": None,
    "started_at": "2026-11-24T15:00:01+00:00",
    "finished_at": "2026-11-24T15:00:02+00:00",
    "wait": 0.5,
    "runtime": 0.5,
    "redelivered": True,
    "retries": 1,
    "retried": [{"retries": 0}],
    "replaced": True,
    "children": 0,
    "code": None,
    "args_sha256": "0" * 64,
    "result_sha256": "0" * 64,
    "log": ["a line"],
    "log_dropped": 1,
    "cpu": None,
    "max_rss": 1,
    "evidence": {"cost": 1},
    "execution": "f1",
    "result": {"n": 8},
    "source": "backend",
}
"""Another value of each field that a worker fills in."""


@pytest.fixture(autouse=True)
def _signing() -> Iterator[None]:
    signing.use(keys.read_signer(PRIVATE.decode(), "key"))
    yield
    signing.forget()


@pytest.fixture
def signatures() -> ReportSignatures:
    return ReportSignatures(keys.read_verifier(PUBLIC, "key"))


def end(**beside: object) -> Fields:
    """The record of a success, as the worker writes it."""
    return {**JOB.signed(JOB.receipt()), **beside}


def read(record: Fields) -> Receipt:
    return Receipt.model_validate(record["receipt"])


def test_no_field_can_be_changed(signatures: ReportSignatures) -> None:
    """Each is signed, or its digest is, or it is for the reader to say."""
    record = end()
    assert signatures.fault_in_record(record, read(record)) == ""
    said_by_reader = {"receipt", "executions", "reused", "judged", "signature"}
    assert OTHERS.keys() | said_by_reader == Receipt.model_fields.keys()
    for name, value in OTHERS.items():
        changed = {**record, "receipt": {**record["receipt"], name: value}}
        expected = CHANGED_RESULT if name == "result" else UNTRUSTED
        assert signatures.fault_of(read(changed)) == expected, name


def test_a_signature_holds_for_nothing_else(signatures: ReportSignatures) -> None:
    """Not for another execution, nor with other words beside, nor another kind or key."""
    record = end()
    receipt = read(record)
    assert signatures.fault_in_record({**record, "execution": "f1"}, receipt) == OF_ANOTHER
    assert signatures.fault_in_record({**record, "unsent": ["t"]}, receipt) == CHANGED_REST
    assert signatures.fault_in_record({**record, "start": {}}, receipt) == CHANGED_REST
    of_start = JOB.signed_start()["signature"]
    confused = {**record, "receipt": {**record["receipt"], "signature": of_start}}
    assert signatures.fault_of(read(confused)) == UNTRUSTED
    as_record = receipt_bytes(record["receipt"], None).replace(b".receipt+json", b".record+json", 1)
    signer = signing.signer()
    assert signer is not None
    other_type = base64.b64encode(signer.sign(as_record)).decode()
    taken = {**record["receipt"]["signature"], "value": other_type}
    confused = {**record, "receipt": {**record["receipt"], "signature": taken}}
    assert signatures.fault_of(read(confused)) == UNTRUSTED
    bare = {**record["receipt"]}
    del bare["signature"]
    assert signatures.fault_of(Receipt.model_validate(bare)) == UNSIGNED
    others = ReportSignatures(keys.read_verifier(keys.generate()[1], "key"))
    assert others.fault_of(receipt) == UNTRUSTED


def test_what_goes_with_a_receipt_is_signed_with_it(signatures: ReportSignatures) -> None:
    """A start that could not be sent before, and what it says of the tasks that it started."""
    from pytest_manifest.worker.receipt import encode_signed, finished_record

    start = encode_signed(JOB.start(TRUE))
    rest: dict[str, Any] = {
        "unsent": ["t-1"],
        "announced": [{"key": "k", "how": "link", "is_off": True}],
    }
    record = json.loads(finished_record(TRUE, JOB.receipt(), start, rest))
    assert signatures.fault_in_record(record, read(record)) == ""
    for name in ("start", "unsent", "announced"):
        less = {key: value for key, value in record.items() if key != name}
        assert signatures.fault_in_record(less, read(less)) == CHANGED_REST
    batch = ReceiptBatch()
    add_record(record, batch, signatures)
    assert (len(batch.starts), len(batch.finals), batch.unsent) == (1, 1, ["t-1"])


def test_records_without_a_receipt_are_signed_whole(signatures: ReportSignatures) -> None:
    """What is unsigned or changed counts for nothing, whatever kind it is of."""
    start = JOB.signed_start()
    batch = ReceiptBatch()
    add_record(start, batch, signatures)
    assert len(batch.starts) == 1
    for name in start.keys() - {"signature", "kind"}:
        with pytest.raises(ValueError, match="its signature does not hold"):
            add_record({**start, name: "x"}, batch, signatures)
    with pytest.raises(ValueError, match="does not hold"):
        add_record({**start, "more": 1}, batch, signatures)
    with pytest.raises(ValueError, match="is not signed"):
        add_record(JOB.start(), batch, signatures)
    as_receipt = record_bytes(start).replace(b".record+json", b".receipt+json", 1)
    signer = signing.signer()
    assert signer is not None
    value = base64.b64encode(signer.sign(as_receipt)).decode()
    with pytest.raises(ValueError, match="does not hold"):
        add_record(
            {**start, "signature": {"key": signer.key_id, "value": value}}, batch, signatures
        )
    spawned: Fields = {
        "kind": "spawned",
        **{name: start[name] for name in ("run", "entry", "attempt")},
    }
    spawned |= {"root": "t-a", "parent": "t-a", "execution": TRUE, "children": []}
    handed_on: Fields = {"kind": "handed_on", "task_id": "t-a", "execution": TRUE, "how": "retry"}
    for record in (spawned, handed_on):
        with pytest.raises(ValueError, match="is not signed"):
            add_record(record, batch, signatures)
        add_record(signing.with_signature(record), batch, signatures)
    assert len(batch.starts) == len(batch.handed_on) == 1


def test_an_unsigned_end_is_told_without_what_came_with_it(signatures: ReportSignatures) -> None:
    """It is no end; its start and its words about other tasks do not count, either."""
    batch = ReceiptBatch()
    add_record({**JOB.finished(), "start": JOB.start(), "unsent": ["t"]}, batch, signatures)
    assert [batch.finals, batch.starts, batch.unsent] == [[], [], []]
    assert [(task_id, fault) for task_id, fault, _ in batch.unsigned] == [("t-a", UNSIGNED)]


def test_what_pytest_fills_in_breaks_no_signature(signatures: ReportSignatures) -> None:
    """Of a job whose worker could not tell where and when it had begun; nothing else can be."""
    unknown = {"started_at": None, "wait": None, "worker": None, "host": None, "pid": None}
    record = JOB.signed(JOB.receipt(state="crashed", result=None, result_sha256=None, **unknown))
    began = parse_moment(JOB.moment(1.0))
    start = started("t-a", TRUE, began, 0, "w@h", "h", 5, redelivered=True)
    whole = completed(read(record), [start])
    assert whole.signature is not None
    assert set(whole.signature.filled) == set(FILLABLE)
    assert signatures.fault_of(whole) == ""
    line = receipt_line(whole.model_dump_json())
    assert line == dump_document(whole)
    assert signatures.fault_of(Receipt.model_validate_json(line)) == ""
    for name, value in {"children": 3, "cpu": 1.0, "queue": "q", "state": "succeeded"}.items():
        more = whole.signature.model_copy(update={"filled": [*FILLABLE, name]})
        lie = whole.model_copy(update={"signature": more, name: value})
        assert signatures.fault_of(lie) == UNTRUSTED, name


def test_what_a_worker_reports_is_not_filled_in(signatures: ReportSignatures) -> None:
    """Who writes into the store cannot add to what was signed, as a time where there was none."""
    record = JOB.signed(JOB.receipt(state="timed_out", result=None, result_sha256=None, wait=None))
    assert signatures.fault_in_record(record, read(record)) == ""
    record["receipt"] |= {"wait": 0.1}
    record["receipt"]["signature"] |= {"filled": ["wait"]}
    assert signatures.fault_of(read(record)) == ""
    assert signatures.fault_in_record(record, read(record)) == UNTRUSTED
    assert signatures.fault_as_reported(read(record)) == UNTRUSTED


TEXTS = st.text(max_size=20)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
ERRORS = st.fixed_dictionaries({"type": TEXTS, "message": TEXTS, "traceback": st.none() | TEXTS})
SECONDS = st.none() | st.integers(0, 1000) | st.floats(0, 1e9, allow_nan=False)


@given(
    evidence=st.dictionaries(TEXTS, VALUES, max_size=3),
    log=st.lists(st.text(st.characters(exclude_categories=()), max_size=20), max_size=3),
    wait=SECONDS,
    runtime=SECONDS,
    error=st.none() | ERRORS,
    received_at=st.sampled_from([None, SENT_AT, "2026-11-24T16:00:00+01:00", "nonsense"]),
)
def test_a_receipt_is_the_same_in_every_place(**fields: Any) -> None:
    """In the stream, the ledger, the exported file: its signature holds in each."""
    signing.use(keys.read_signer(PRIVATE.decode(), "key"))
    signatures = ReportSignatures(keys.read_verifier(PUBLIC, "key"))
    record = JOB.signed(JOB.receipt(**fields))
    try:
        receipt = read(record)
    except ValueError:
        return  # no reader takes it
    assert signatures.fault_in_record(record, receipt) == ""
    kept = receipt.model_dump_json()
    assert signatures.fault_of(Receipt.model_validate_json(kept)) == ""
    assert signatures.fault_of(Receipt.model_validate_json(receipt_line(kept))) == ""


def test_a_worker_without_a_key_signs_nothing_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one whose key cannot be read; its records are as ever."""
    for told in ("", "/nowhere/a.key"):
        monkeypatch.setenv(keys.SIGNING_KEY_VARIABLE, told)
        signing.forget()
        record = JOB.signed(JOB.receipt())
        assert "signature" not in record["receipt"]
        assert "execution" not in record["receipt"]
        assert "signature" not in JOB.signed_start()


@pytest.mark.parametrize(
    ("signature", "is_believed"),
    [
        ({}, True),
        ({"key": ""}, False),
        ({"key": 5}, False),
        ({"key": None}, False),
        ({"value": 5}, False),
        ({"value": None}, False),
        ({"value": ""}, False),
        ({"value": "é"}, False),
    ],
)
def test_a_signature_names_its_key_and_has_a_value(
    signatures: ReportSignatures, signature: Fields, is_believed: bool
) -> None:
    """In a record that was never read as a model, too, anything may stand in their places."""
    start = JOB.signed_start()
    told = {**start, "signature": {**start["signature"], **signature}}
    assert signatures.fault_of_record(told) == ("" if is_believed else UNTRUSTED)


def test_a_signature_is_written_in_one_way(signatures: ReportSignatures) -> None:
    """Characters that base64 does not know are not skipped."""
    start = JOB.signed_start()
    value = start["signature"]["value"]
    told = {**start, "signature": {**start["signature"], "value": f"{value[:8]}!{value[8:]}"}}
    assert signatures.fault_of_record(told) == UNTRUSTED


def test_a_signature_is_of_the_key_that_it_names() -> None:
    """Another key that is trusted as well does not do."""
    public = keys.generate()[1]
    verifier = keys.read_verifier(PUBLIC + public, "keys")
    own, other = verifier.key_ids
    start = JOB.signed_start()
    assert start["signature"]["key"] == own
    assert ReportSignatures(verifier).fault_of_record(start) == ""
    told = {**start, "signature": {**start["signature"], "key": other}}
    assert ReportSignatures(verifier).fault_of_record(told) == UNTRUSTED


@pytest.mark.parametrize(
    ("signed", "told", "fault"),
    [
        ({"result": None, "result_sha256": None}, {}, ""),
        # Left out as too large, and told so.
        ({"evidence": {"result_omitted": 9}}, {"result": None}, ""),
        ({}, {"result": None}, CHANGED_RESULT),
        ({"evidence": {"other": 9}}, {"result": None}, CHANGED_RESULT),
        ({"evidence": {"result_omitted": 9}}, {"result": {"n": 8}}, CHANGED_RESULT),
        ({"result": None, "result_sha256": None}, {"result": {"n": 8}}, CHANGED_RESULT),
    ],
)
def test_a_result_is_the_one_whose_digest_was_signed(
    signatures: ReportSignatures, signed: Fields, told: Fields, fault: str
) -> None:
    """Also where there is none, or where it was left out."""
    record = JOB.signed(JOB.receipt(**signed))
    record["receipt"] |= told
    assert signatures.fault_of(read(record)) == fault


def test_each_receipt_is_checked_once() -> None:
    """Another one that looks the same is checked by itself; what does not hold is, each time."""
    verifier = keys.read_verifier(PUBLIC, "key")
    signatures, checks = ReportSignatures(verifier), 0
    verify = verifier.verify

    def counted(key_id: str, signature: bytes, data: bytes) -> bool:
        nonlocal checks
        checks += 1
        return verify(key_id, signature, data)

    verifier.verify = counted  # type: ignore[method-assign]  # to count what it is asked
    record = end()
    receipts = [read(record), read(record)]
    for expected in (2, 2):
        assert [signatures.fault_of(one) for one in receipts] == ["", ""]
        assert checks == expected
    lie = read({**record, "receipt": {**record["receipt"], "retries": 5}})
    for expected in (3, 4):
        assert signatures.fault_of(lie) == UNTRUSTED
        assert checks == expected
