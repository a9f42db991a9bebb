"""A run read for reports: every entry of it once, with what is known of its attempts."""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_manifest.analysis.reading import read_records
from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.schema import Entry
from pytest_manifest.schema.statuses import outcome_of
from pytest_manifest.verdict.explanation import error_place
from tests.reports import add_receipts, add_starts, started
from tests.unit.analysis_support import START, MadeRun, after, verdict


@pytest.fixture
def made(tmp_path: Path) -> Iterator[MadeRun]:
    entries = [Entry(id=name, task="jobs.t") for name in ("a", "b", "c", "d")]
    made = MadeRun(tmp_path, entries)
    yield made
    made.ledger.close()


def test_only_entries_of_the_run_come_in_the_order_of_the_manifest(made: MadeRun) -> None:
    made.plan("c", "a")
    made.settle("c", "passed", made.receipt("c"))
    records = list(read_records(made.ledger, made.manifest))
    assert [(r.id, r.kind, r.outcome, r.line) for r in records] == [
        ("a", None, "pending", 2),
        ("c", "passed", "passed", 4),
    ]


def test_a_few_entries_of_a_large_manifest_are_read_alone(tmp_path: Path) -> None:
    made = MadeRun(tmp_path, [Entry(id=f"e-{n}", task="jobs.t") for n in range(50)])
    with made.ledger:
        made.plan("e-30", "e-2", "gone")
        records = list(read_records(made.ledger, made.manifest))
        assert [(r.id, r.line) for r in records] == [("e-2", 4), ("e-30", 32)]


def test_a_receipt_tells_an_attempts_times_and_place(made: MadeRun) -> None:
    made.plan("a")
    receipt = made.receipt(
        "a",
        worker="w@h",
        host="h",
        pid=9,
        queue="q",
        received_at=after(1),
        started_at=after(2),
        finished_at=after(5),
        wait=2.0,
        runtime=3.0,
        executions=2,
        redelivered=True,
        retries=4,
        result={"cost": 0.25},
    )
    made.settle("a", "duplicated", receipt)
    (record,) = read_records(made.ledger, made.manifest)
    last = record.last
    assert last is not None
    assert (last.place, last.host, last.queue) == ("w@h#9", "h", "q")
    assert (last.sent_at, last.received_at) == (START, after(1))
    assert (last.started_at, last.finished_at) == (after(2), after(5))
    assert (last.wait, last.runtime) == (2.0, 3.0)
    assert (last.executions, last.redelivered, last.retries) == (2, True, 4)
    assert (last.cost, last.billed_cost) == (0.25, 0.25)
    assert (last.kind, last.sentence) == ("duplicated", "a is duplicated.")


def test_starts_tell_where_a_job_was_that_nobody_heard_of_again(made: MadeRun) -> None:
    made.plan("a")
    begun = [
        started("t-a-1", "x", after(1), 0, "w@h", "h", 5, redelivered=False),
        started("t-a-1", "y", after(3), 0, "v@h", "h", 6, redelivered=True),
        started("t-a-1", "z", after(4), 1, "v@h", "h", 6, redelivered=False),
    ]
    add_starts(made.ledger, begun)
    made.settle("a", "lost", None)
    (record,) = read_records(made.ledger, made.manifest)
    last = record.last
    assert last is not None
    assert (last.place, last.started_at, last.wait) == ("v@h#6", after(4), 4.0)
    assert (last.executions, last.redelivered, last.retries) == (2, True, 1)
    assert (last.finished_at, last.runtime, record.outcome) == (None, None, "error")


def test_each_attempt_has_its_own_receipt_and_reason(made: MadeRun) -> None:
    made.plan("a")
    crashed = made.receipt("a", state="crashed", pid=1, worker="w@h")
    add_receipts(made.ledger, [("t-a-1", None, crashed), ("t-a-1", None, made.receipt("b"))])
    made.ledger.verdicts.end_attempt("t-a-1", verdict("a", "crashed"))
    made.plan("a", number=2, reason="crashed")
    made.settle("a", "passed", made.receipt("a", 2, pid=2, worker="w@h"), attempt=2)
    (record,) = read_records(made.ledger, made.manifest)
    told = [(a.number, a.kind, a.reason, a.pid) for a in record.attempts]
    assert told == [(1, "crashed", None, 1), (2, "passed", "crashed", 2)]
    assert record.receipt is not None
    assert record.receipt.attempt == 2


def test_a_forged_receipt_tells_no_times(made: MadeRun) -> None:
    made.plan("a")
    made.settle("a", "forged", made.receipt("a", worker="evil", started_at=after(-1e6), wait=-1.0))
    (record,) = read_records(made.ledger, made.manifest)
    assert record.receipt is not None
    assert record.last is not None
    assert (record.last.worker, record.last.started_at, record.last.wait) == (None, None, None)


def test_where_costs_are_told_an_estimate_is_charged_for_what_tells_none(tmp_path: Path) -> None:
    made = MadeRun(tmp_path, [Entry(id=name, task="jobs.t", cost=2.0) for name in ("a", "b")])
    with made.ledger:
        made.plan("a", "b")
        made.settle("a", "passed", made.receipt("a", evidence={"cost": 0.5}))
        made.settle("b", "passed", made.receipt("b"))
        charges = [(r.attempts[0].cost, r.attempts[0].billed_cost) for r in _all(made)]
    assert charges == [(0.5, 0.5), (None, 2.0)]


def test_without_costs_nothing_is_charged(made: MadeRun) -> None:
    made.plan("a")
    made.settle("a", "passed", made.receipt("a"))
    assert [r.attempts[0].billed_cost for r in _all(made)] == [None]


def _all(made: MadeRun) -> list[EntryRecord]:
    return list(read_records(made.ledger, made.manifest))


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        (None, "pending"),
        ("pending", "pending"),
        ("passed", "passed"),
        ("crashed", "failed"),
        ("lost", "error"),
        ("unknown", "error"),
        ("skipped", "skipped"),
    ],
)
def test_outcomes_are_what_pytest_shows(kind: object, shown: str) -> None:
    assert outcome_of(kind) == shown  # type: ignore[arg-type]  # a kind of verdict


def test_memory_stays_flat_with_the_number_of_entries(tmp_path: Path) -> None:
    """Of 2,000 records of 4 kB each only a few are held at once."""
    made = MadeRun(tmp_path, [Entry(id=f"e-{n}", task="jobs.t") for n in range(2000)])
    with made.ledger:
        names = made.manifest.ids
        made.plan(*names)
        rows = [(verdict(n, "passed"), made.receipt(n, log=["x" * 4000])) for n in names]
        made.ledger.verdicts.record(rows)
        del rows
        tracemalloc.start()
        try:
            count = sum(1 for _ in read_records(made.ledger, made.manifest))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 2000
    assert peak < 2_000_000


# The place of an error


def _raised() -> str:
    try:
        int("no number")
    except ValueError:
        return traceback.format_exc()
    raise AssertionError


def test_the_place_is_the_last_frame() -> None:
    place = error_place(_raised())
    assert place is not None
    assert place.startswith("test_analysis_reading.py:")
    assert place.endswith(" in _raised")


def test_of_chained_errors_the_last_one_counts() -> None:
    text = (
        'Traceback (most recent call last):\n  File "/a/one.py", line 1, in f\n    f()\nE: 1\n'
        "\nDuring handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "C:\\\\b\\\\two.py", line 22, in g\n    g()\n'
        "ValueError: 2\n"
    )
    assert error_place(text) == "two.py:22 in g"


def test_frames_of_celery_are_left_out() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/app/jobs.py", line 3, in work\n    self.retry()\n'
        '  File "/v/site-packages/celery/app/task.py", line 736, in retry\n    raise ret\n'
        "celery.exceptions.Retry: soon\n"
    )
    assert error_place(text) == "jobs.py:3 in work"


def test_a_message_that_looks_like_a_frame_is_none() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/app/jobs.py", line 3, in work\n    fail()\n'
        'ValueError: see\n  File "/else/evil.py", line 9, in lie\n'
    )
    assert error_place(text) == "jobs.py:3 in work"


def test_an_exception_group_has_a_place() -> None:
    group = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/app/jobs.py", line 5, in work\n  |     raise g\n'
        "  | ExceptionGroup: two (2 sub-exceptions)\n"
        "  +-+---------------- 1 ----------------\n    | Traceback (most recent call last):\n"
        '    |   File "/app/jobs.py", line 7, in inner\n    |     x()\n    | KeyError: 1\n'
        "    +------------------------------------\n"
    )
    assert error_place(group) == "jobs.py:7 in inner"


@pytest.mark.parametrize("text", [None, "", "ValueError: no traceback", "\x00\ud800", "Traceback"])
def test_without_a_frame_there_is_no_place(text: str | None) -> None:
    assert error_place(text) is None


def test_a_place_is_plain_text() -> None:
    text = 'Traceback (most recent call last):\n  File "/a/\x1b[31mj.py", line 1, in \x00f\nE: 1\n'
    assert error_place(text) == "j.py:1 in \\x00f"
