"""The warnings of a run about receivers of Celery's signals that raised."""

from __future__ import annotations

import pytest

from pytest_manifest.results.records import ReceiptBatch, ReceiverFailedRecord, add_record
from pytest_manifest.run.connections import LONGEST, MOST, FailedReceivers


def failed(entry: str, receiver: str = "shop.commit", **more: bool) -> ReceiverFailedRecord:
    return ReceiverFailedRecord(entry, f"run of {entry}", receiver, f"ValueError: {entry}", **more)


def told(*failures: ReceiverFailedRecord) -> tuple[list[str], list[str]]:
    warnings: list[str] = []
    live: list[str] = []
    found = FailedReceivers(warnings, live)
    for failure in failures:
        found.note([failure])
    return warnings, live


def test_one_warning_counts_the_failures() -> None:
    warnings, live = told(failed("a"), failed("b"), failed("b"))
    assert len(warnings) == len(live) == 1
    assert warnings[0].startswith("shop.commit raised ValueError: a (3 times, first at 'a').")
    assert "(1 time, first at 'a')" in live[0]


def test_the_start_of_workers_is_said_once() -> None:
    warnings, _ = told(failed("a", at_start=True), failed("b", at_start=True), failed("a"))
    assert len(warnings) == 2
    assert warnings[0].startswith("when a worker started, shop.commit raised ValueError: a.")


def test_many_receivers_and_long_names_have_an_end() -> None:
    warnings, live = told(*(failed("a", f"shop.{'x' * 999}{n}") for n in range(2 * MOST)))
    assert len(warnings) == len(live) == MOST
    assert max(map(len, warnings)) < 2 * LONGEST + 200


def test_a_record_is_read_and_one_without_a_receiver_is_none() -> None:
    batch = ReceiptBatch()
    record = {"kind": "receiver_failed", "entry": "a", "execution": "e", "error": "E"}
    add_record({**record, "receiver": "shop.commit"}, batch)
    assert batch
    assert batch.receiver_failures == [ReceiverFailedRecord("a", "e", "shop.commit", "E")]
    with pytest.raises(ValueError, match="receiver"):
        add_record(record, batch)
