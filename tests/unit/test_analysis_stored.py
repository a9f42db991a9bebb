"""Records made of the ledger's row alone say what those made of all its tables say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.analysis import reading
from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.ledger.verdicts import History
from pytest_manifest.schema import Entry, ErrorInfo, Receipt
from tests.reports import add_receipts, add_starts, started
from tests.unit.analysis_support import START, MadeRun, after, verdict

Scene = Callable[[MadeRun, str], None]

TASK = "jobs.é"


def full(made: MadeRun, name: str, number: int = 1, /, **fields: object) -> Receipt:
    """A receipt as instrumented workers write it."""
    told: dict[str, object] = {
        "task": TASK,
        "worker": "w@h",
        "host": "h",
        "pid": 7,
        "queue": "q",
        "sent_at": START,
        "received_at": after(0.25),
        "started_at": after(0.5),
        "finished_at": after(1.75),
        "wait": 0.5,
        "runtime": 1.25,
        "executions": 1,
        "result": {"n": 1},
    }
    return made.receipt(name, number, **told | fields)


def start(
    made: MadeRun, name: str, execution: str = "x", retries: int = 0, *, redelivered: bool = False
) -> None:
    task_id, began = f"t-{name}-1", after(0.5)
    one = started(task_id, execution, began, retries, "w@h", "h", 7, redelivered=redelivered)
    add_starts(made.ledger, [one])


def settle(made: MadeRun, name: str, receipt: Receipt, attempt: int = 1) -> None:
    add_receipts(made.ledger, [(receipt.task_id, "x", receipt)])
    made.ledger.verdicts.record([(verdict(name, "passed", attempt), receipt)])


def simple(made: MadeRun, name: str, **fields: object) -> None:
    made.plan(name)
    start(made, name)
    settle(made, name, full(made, name, **fields))


def unwitnessed(made: MadeRun, name: str) -> None:
    made.plan(name)
    settle(made, name, full(made, name))


def cost_in_result(made: MadeRun, name: str) -> None:
    simple(made, name, result={"cost": 0.5})


def cost_in_evidence(made: MadeRun, name: str) -> None:
    simple(made, name, evidence={"cost": 0.25}, result={"cost": 9})


def expected_failure(made: MadeRun, name: str) -> None:
    simple(made, name, state="failed", error=ErrorInfo(type="E", message="m"), result=None)


def expired(made: MadeRun, name: str) -> None:
    simple(made, name, state="expired", result=None)


def odd_texts(made: MadeRun, name: str) -> None:
    simple(made, name, log=["\x1b[31m", "é\n"], result={"é": [1, 2.5, None, True]})


PLAIN: list[Scene] = [
    simple, unwitnessed, cost_in_result, cost_in_evidence, expected_failure, odd_texts,
]  # fmt: skip


def retried(made: MadeRun, name: str) -> None:
    simple(made, name, retries=2)


def begun_twice(made: MadeRun, name: str) -> None:
    simple(made, name)
    start(made, name, "y")


def retried_after_its_end(made: MadeRun, name: str) -> None:
    made.plan(name)
    start(made, name, retries=3)
    settle(made, name, full(made, name))


def redelivered(made: MadeRun, name: str) -> None:
    made.plan(name)
    start(made, name, redelivered=True)
    settle(made, name, full(made, name))


def two_receipts(made: MadeRun, name: str) -> None:
    simple(made, name)
    add_receipts(made.ledger, [(f"t-{name}-1", "y", full(made, name, evidence={"cost": 4}))])


def other_execution(made: MadeRun, name: str) -> None:
    made.plan(name)
    start(made, name, "y")
    settle(made, name, full(made, name, evidence={"cost": 4}))


def sent_again(made: MadeRun, name: str) -> None:
    made.plan(name)
    made.plan(name, number=2, reason="lost")
    settle(made, name, full(made, name, 2), attempt=2)


def first_of_two(made: MadeRun, name: str) -> None:
    simple(made, name)
    made.plan(name, number=2, reason="lost")


def for_a_reason(made: MadeRun, name: str) -> None:
    made.plan(name, reason="never sent")
    settle(made, name, full(made, name))


def crashed(made: MadeRun, name: str) -> None:
    simple(made, name, state="crashed", result=None)


def from_a_plain_worker(made: MadeRun, name: str) -> None:
    made.plan(name)
    start(made, name)
    bare = {"worker": None, "started_at": None, "executions": 0, "sent_at": None, "wait": None}
    settle(made, name, full(made, name, source="backend", **bare))


ODD: list[Scene] = [
    retried, begun_twice, retried_after_its_end, redelivered, two_receipts, other_execution,
    sent_again, first_of_two, for_a_reason, crashed, from_a_plain_worker, expired,
]  # fmt: skip


def told(record: EntryRecord) -> dict[str, object]:
    return {
        name: getattr(record, name)
        for name in (
            *("id", "task", "line", "kind", "outcome", "sentence", "entry", "verdict", "receipt"),
            *("attempts", "error_place", "meta", "last"),
        )
    }


@pytest.mark.parametrize("charged", [False, True])
def test_the_short_way_says_what_the_long_way_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, charged: bool
) -> None:
    """Whatever is odd about an entry, and whether the run has costs or not."""
    scenes = [*PLAIN, *ODD]
    costly = (cost_in_result, cost_in_evidence, two_receipts, other_execution)
    chosen = [scene for scene in scenes if charged or scene not in costly]
    more = [{}, {"cost": 2.0, "countdown": 1.5}, {"meta": {"eta": 1, "cost": 3}}]
    entries = [
        Entry(id=f"{scene.__name__}-{n}", task=TASK, **fields)  # type: ignore[arg-type]  # fields of Entry
        for scene in chosen
        for n, fields in enumerate(more)
    ]
    made = MadeRun(tmp_path, entries)
    with made.ledger as ledger:
        for entry in entries:
            next(s for s in chosen if s.__name__ == entry.id[:-2])(made, entry.id)
        with usual(monkeypatch) as found:
            short = list(read_records(ledger, made.manifest))
        monkeypatch.setattr(reading, "_usual", lambda *_, **__: None)
        long = list(read_records(ledger, made.manifest))
    assert [told(record) for record in short] == [told(record) for record in long]
    assert {one[:-2] for one in found} == {scene.__name__ for scene in PLAIN if scene in chosen}


@contextmanager
def usual(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ids of entries whose records are made of the ledger's row alone."""
    found: list[str] = []
    real = reading._usual

    def seen(*given: Any, **named: Any) -> History | None:
        record = real(*given, **named)
        if record is not None:
            found.append(record.attempts[0].entry)
        return record

    with monkeypatch.context() as patch:
        patch.setattr(reading, "_usual", seen)
        yield found


def test_beyond_so_many_odd_ones_all_are_read_the_long_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept in mind is bounded."""
    made = MadeRun(tmp_path, [Entry(id=name, task="t") for name in "abc"])
    with made.ledger as ledger, usual(monkeypatch) as found:
        simple(made, "a")
        begun_twice(made, "b")
        begun_twice(made, "c")
        next(read_records(ledger, made.manifest))
        assert found == ["a"]
        monkeypatch.setattr(reading, "_UNUSUAL_LIMIT", 1)
        list(read_records(ledger, made.manifest))
    assert found == ["a"]
