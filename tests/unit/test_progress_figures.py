"""The figures of runs, read from their ledgers and from what memory alone knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from pytest_manifest.reporting.progress_meter import Meter
from tests.unit.following_support import MadeRun

if TYPE_CHECKING:
    from pytest_manifest.run.run import Run

Make = Callable[..., "Book"]


class Book:
    """A made run of ten entries, and the session's view of it."""

    def __init__(self, made: MadeRun) -> None:
        self.made = made
        self.flights: list[SimpleNamespace] = []
        self.remarks: list[str] = []
        self.signals = SimpleNamespace(nobody_since=None)
        run = SimpleNamespace(
            ledger_path=made.path,
            in_flight=lambda: self.flights,
            ended=threading.Event(),
            live_warnings=self.remarks,
            signals=self.signals,
        )
        self.run = cast("Run", run)

    def meter(self, others: Sequence[Book] = (), *, anew: bool = True) -> Meter:
        runs = [self.run, *(one.run for one in others)]
        return Meter(runs, anew=anew, clock=lambda: self.made.now)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[MadeRun] = []

    def make(**options: object) -> Book:
        made.append(MadeRun(tmp_path, monkeypatch, **options))  # type: ignore[arg-type]  # options as the callee names them
        return Book(made[-1])

    yield make
    for run in made:
        run.close()


@pytest.fixture
def book(make: Make) -> Book:
    return make()


def test_every_entry_is_counted_once(book: Book) -> None:
    """Done, sent, running and the verdicts; what was held back was never sent."""
    made = book.made
    made.do("e0")
    made.do("e1", status="failed")
    made.send("e2", "e3")
    made.infer("e2", "crashed")
    made.infer("e3", "lost")
    made.infer("e4", "skipped")
    made.send("e5", "e6", "e7", "e8", "e9")
    made.start("e6")
    made.after(17)
    made.start("e5", "e8", "e9")
    made.hand_on("e8")  # and waits for its next try
    made.die("e9")  # the process that ran it
    made.after(3)
    meter = book.meter()
    known = meter.read()
    meter.close()
    assert (known.total, known.done, known.sent, known.running) == (10, 5, 9, 2)
    counts = (known.passed, known.failed, known.lost, known.unknown, known.skipped)
    assert counts == (1, 2, 1, 0, 1)
    assert known.slowest == ("e6", 20)


def test_the_end_is_foreseen_as_long_as_jobs_wait(book: Book) -> None:
    """When all that is left is running, a rate does not tell how long that will take."""
    meter = book.meter()
    book.made.after(4)
    book.made.do(*(f"e{n}" for n in range(8)))
    book.made.send("e8", "e9")
    book.made.start("e8")
    assert meter.read().eta == pytest.approx(1.0)
    book.made.start("e9")
    assert meter.read().eta is None
    meter.close()


def test_a_corrected_verdict_is_counted_once(book: Book) -> None:
    """A late receipt knows better: the entry is passed now, and lost no more."""
    meter = book.meter()
    book.made.infer("e0", "lost")
    assert meter.read().lost == 1
    book.made.judge("e0")
    known = meter.read()
    assert (known.done, known.passed, known.lost) == (1, 1, 0)
    meter.close()


@pytest.mark.parametrize("anew", [True, False])
def test_what_an_earlier_run_has_done_is_no_news(book: Book, anew: bool) -> None:
    """Of a run that is gone on with, the old verdicts count as done, and not for the rate."""
    book.made.do("e0")
    book.made.after(5)
    meter = book.meter(anew=anew)
    book.made.after(5)
    known = meter.read()
    assert known.done == 1
    assert (known.rate is None) == (not anew)
    meter.close()


def test_what_waits_for_its_own_next_try_is_counted_with_the_time_of_the_first(book: Book) -> None:
    """A task may wait for minutes between its tries: what looks stuck has a reason and a time."""
    made = book.made
    meter = book.meter()
    quiet = meter.read()
    assert (quiet.retrying, quiet.next_try) == (0, None)
    made.send("e1", "e2", "e3", "e4")
    made.start("e1", "e2", "e3", "e4")
    for entry, after in (("e1", 300), ("e2", 60), ("e3", None)):
        due = None if after is None else made.now + timedelta(seconds=after)
        made.hand_on(entry, next_at=due)
    made.hand_on("e4", how="canvas")  # goes on as other tasks: no try of its own is due
    known = meter.read()
    meter.close()
    assert (known.running, known.retrying, known.next_try) == (0, 3, 60)


def test_several_runs_are_added_up(make: Make) -> None:
    """A session may have several manifests; it is over when all of them are."""
    book, other = make(number=1), make(number=2)
    meter = book.meter([other])
    book.made.after(10)
    other.made.now = book.made.now
    other.made.do("e0")
    book.made.do("e1", status="failed")
    book.made.now = other.made.now
    known = meter.read()
    assert (known.total, known.done, known.passed, known.failed) == (20, 2, 1, 1)
    assert known.rate == pytest.approx(0.2)
    assert known.eta == pytest.approx(90)
    book.run.ended.set()
    assert not meter.over
    other.run.ended.set()
    assert meter.over
    meter.close()


def test_no_end_is_foreseen_of_what_a_silent_worker_holds(book: Book) -> None:
    """It is none of the rate's: it comes back when the broker gives it back."""
    meter = book.meter()
    book.made.after(4)
    book.made.do(*(f"e{n}" for n in range(8)))
    book.made.send("e8", "e9")
    book.flights += [SimpleNamespace(stranded=True), SimpleNamespace(stranded=True)]
    known = meter.read()
    assert (known.stranded, known.eta) == (2, None)
    book.remarks.append("so it is")
    assert meter.new_warnings() == ["so it is"]
    assert meter.new_warnings() == []
    book.signals.nobody_since = time.monotonic() - 60
    assert meter.read().unattended == pytest.approx(60, abs=10)
    meter.close()


def test_no_end_is_foreseen_once_nothing_has_settled_for_longer(book: Book) -> None:
    """What was to take seconds has not come for a minute: whatever is in the way, it goes on."""
    meter = book.meter()
    book.made.after(4)
    book.made.do(*(f"e{n}" for n in range(8)))
    book.made.send("e8", "e9")
    assert meter.read().eta is not None
    book.made.after(60)
    assert meter.read().eta is None
    meter.close()
