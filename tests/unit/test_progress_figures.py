"""The figures of runs, read from their ledgers and from what is in flight."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_manifest.broker.attempt import task_id_for
from pytest_manifest.ledger import Ledger, RunInfo, utc_now
from pytest_manifest.reporting.progress_meter import Meter
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.schema import Entry, VerdictStatus
from tests.reports import handed_on
from tests.verdicts import evaluate

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run

NAMES = [f"e-{n}" for n in range(10)]


class Book:
    """A ledger of ten entries, and the run that it is of."""

    def __init__(self, path: Path) -> None:
        info = RunInfo("r", path, "0" * 64, "w", "m", 10, utc_now(), "", "", True, 60)
        self.ledger = Ledger.create(path, info)
        rows = [(task_id_for("r", e, 1), e, 1, n) for n, e in enumerate(NAMES)]
        self.ledger.attempts.plan(rows)
        self.flights: list[PendingAttempt] = []
        self.remarks: list[str] = []
        run = SimpleNamespace(
            read=lambda: Ledger.open(path),
            in_flight=lambda: self.flights,
            ended=threading.Event(),
            live_warnings=self.remarks,
            signals=SimpleNamespace(nobody_since=None),
        )
        self.run = cast("Run", run)

    def settle(self, entry: str, kind: VerdictStatus) -> None:
        problem = None if kind == "passed" else kind
        verdict = evaluate(Entry(id=entry, task="t"), None, attempt=1, problem=problem)
        self.ledger.verdicts.record([(verdict.model_copy(update={"verdict": kind}), None)])

    def fly(self, entry: str, *, running_for: float | None = None) -> None:
        started = None if running_for is None else time.monotonic() - running_for
        one = PendingAttempt("r", Entry(id=entry, task="t"), 1, entry, 0.0, started=started)
        self.flights.append(one)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "r.sqlite")
    yield book
    book.ledger.close()


def test_every_entry_is_counted_once(book: Book) -> None:
    """Done, sent, running and the verdicts; what was held back was never sent."""
    for entry, kind in zip(NAMES, ("passed", "failed", "crashed", "lost", "skipped"), strict=False):
        book.settle(entry, kind)  # type: ignore[arg-type]  # the five are kinds
    book.fly("e-5", running_for=3.0)
    book.fly("e-6", running_for=20.0)
    book.fly("e-7")
    book.fly("e-8", running_for=1.0)  # and waits for its next try
    book.flights[-1].between = handed_on("e-8", "x", "retry", None, None)
    book.fly("e-9", running_for=1.0)  # in a process that has died
    book.flights[-1].loss = WorkerLoss("w", -9)
    meter = Meter([book.run])
    known = meter.read()
    meter.close()
    assert (known.total, known.done, known.sent, known.running) == (10, 5, 9, 2)
    counts = (known.passed, known.failed, known.lost, known.unknown, known.skipped)
    assert counts == (1, 2, 1, 0, 1)
    assert known.slowest is not None
    assert known.slowest[0] == "e-6"
    assert known.slowest[1] == pytest.approx(20, abs=5)


def test_the_end_is_foreseen_as_long_as_jobs_wait(book: Book) -> None:
    """When all that is left is running, a rate does not tell how long that will take."""
    meter = Meter([book.run])
    for entry in NAMES[:8]:
        book.settle(entry, "passed")
    book.fly("e-8", running_for=60.0)
    book.fly("e-9")
    assert meter.read().eta is not None
    book.flights.pop()
    book.fly("e-9", running_for=1.0)
    assert meter.read().eta is None
    meter.close()


def test_a_corrected_verdict_is_counted_once(book: Book) -> None:
    """A late receipt knows better: the entry is passed now, and lost no more."""
    meter = Meter([book.run])
    book.settle("e-0", "lost")
    assert meter.read().lost == 1
    book.settle("e-0", "passed")
    known = meter.read()
    assert (known.done, known.passed, known.lost) == (1, 1, 0)
    meter.close()


@pytest.mark.parametrize("anew", [True, False])
def test_what_an_earlier_run_has_done_is_no_news(book: Book, anew: bool) -> None:
    """Of a run that is gone on with, the old verdicts count as done, and not for the rate."""
    book.settle("e-0", "passed")
    meter = Meter([book.run], anew=anew)
    known = meter.read()
    assert known.done == 1
    assert (known.rate is None) == (not anew)
    meter.close()


def test_what_waits_for_its_own_next_try_is_counted_with_the_time_of_the_first(book: Book) -> None:
    """A task may wait for minutes between its tries: what looks stuck has a reason and a time."""
    meter = Meter([book.run])
    quiet = meter.read()
    assert (quiet.retrying, quiet.next_try) == (0, None)
    now = utc_now()
    for entry, after in (("e-1", 300), ("e-2", 60), ("e-3", None)):
        book.fly(entry, running_for=100.0)
        due = None if after is None else now + timedelta(seconds=after)
        book.flights[-1].between = handed_on(entry, "x", "retry", now, due)
    book.fly("e-4", running_for=100.0)  # goes on as other tasks: no try of its own is due
    book.flights[-1].between = handed_on("e-4", "x", "canvas", now, None)
    known = meter.read()
    meter.close()
    assert (known.running, known.retrying) == (0, 3)
    assert known.next_try == pytest.approx(60, abs=10)


def test_several_runs_are_added_up(book: Book, tmp_path: Path) -> None:
    """A session may have several manifests; it is over when all of them are."""
    other = Book(tmp_path / "s.sqlite")
    other.settle("e-0", "passed")
    book.settle("e-1", "failed")
    meter = Meter([book.run, other.run])
    known = meter.read()
    assert (known.total, known.done, known.passed, known.failed) == (20, 2, 1, 1)
    book.run.ended.set()
    assert not meter.over
    other.run.ended.set()
    assert meter.over
    meter.close()
    other.ledger.close()


def test_no_end_is_foreseen_of_what_a_silent_worker_holds(book: Book) -> None:
    """It is none of the rate's: it comes back when the broker gives it back."""
    meter = Meter([book.run])
    for entry in NAMES[:8]:
        book.settle(entry, "passed")
    for entry in NAMES[8:]:
        book.fly(entry)
        book.flights[-1].stranded = True
    known = meter.read()
    assert (known.stranded, known.eta) == (2, None)
    book.remarks.append("so it is")
    assert meter.new_warnings() == ["so it is"]
    assert meter.new_warnings() == []
    meter.close()


def test_no_end_is_foreseen_once_nothing_has_settled_for_longer(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to take seconds has not come for a minute: whatever is in the way, it goes on."""
    meter = Meter([book.run])
    for entry in NAMES[:8]:
        book.settle(entry, "passed")
    book.fly("e-8")
    book.fly("e-9")
    assert meter.read().eta is not None
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert meter.read().eta is None
    meter.close()
