"""The clock of pytest's machine is set while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from pytest_manifest.run import fact_log as clock
from pytest_manifest.run.fact_log import CLOCK, ClockWatch
from pytest_manifest.verdict import belief
from pytest_manifest.verdict.belief import Identity
from tests.reports import add_receipts
from tests.unit.ledger_support import INFO, MOMENT, receipt
from tests.unit.run_world import Clock

HOUR = 3600.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "r.sqlite", INFO) as ledger:
        yield ledger


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clock:
    both = Clock()
    monkeypatch.setattr(clock, "utc_now", both.utc_now)
    monkeypatch.setattr(clock, "time", SimpleNamespace(monotonic=both.monotonic))
    monkeypatch.setattr(clock, "boot_id", lambda: "this")
    return both


def set_back(ledger: Ledger, task_id: str) -> float:
    """By how many seconds the clock was set back while a job was in flight, as the judge has it."""
    for entry in "ab":
        for one in ledger.jobs.of_entry(entry):
            if one.own.job.task_id == task_id:
                of = Identity(INFO.run, entry, 1, task_id)
                facts, run = one.own, ledger.jobs.run_facts()
                traces = belief.traces_of(facts, of)
                last = max((end.seq for end in traces.ends), default=math.inf)
                return belief.set_back(facts, traces, run, last).total_seconds()
    return 0.0


@pytest.fixture
def sent(ledger: Ledger) -> str:
    """The task id of an attempt that is in flight."""
    ledger.attempts.plan([("t-a", "a", 1, 0), ("t-b", "b", 1, 1)])
    ledger.attempts.mark(["t-a"], "sent", sent_at=MOMENT)
    return "t-a"


def looked(ledger: Ledger, clocks: Clock, *hours: int) -> None:
    """A watch looks first, and then each time that the clock was set by so many hours."""
    watch = ClockWatch(ledger)
    watch.look()
    for one in hours:
        clocks.sleep(7)
        clocks.jump(one)
        watch.look()


@pytest.mark.parametrize(
    ("hours", "back"),
    [
        ([], 0),
        ([2], 0),
        ([-2], 2),
        ([1, -2], 2),
        ([-2, 1], 2),
        ([-2, 2, -1], 2),
        ([-1, -2], 3),
        ([-2, 2, -2], 2),
        ([3, -1, -1], 2),
    ],
)
def test_what_is_in_flight_is_excused_by_as_much_as_the_clock_was_set_back(
    ledger: Ledger, clocks: Clock, sent: str, hours: list[int], back: int
) -> None:
    """But by no more than it is behind the most that it ever was ahead."""
    looked(ledger, clocks, *hours)
    assert set_back(ledger, sent) == back * HOUR


def test_what_is_sent_later_is_not_excused(ledger: Ledger, clocks: Clock, sent: str) -> None:
    """Only what the clock is set back by while it is out; however far it was set back before."""
    looked(ledger, clocks, -2)
    ledger.attempts.mark(["t-b"], "sent", sent_at=MOMENT)
    assert set_back(ledger, "t-b") == 0
    clocks.jump(-1)
    ClockWatch(ledger).look()
    assert (set_back(ledger, sent), set_back(ledger, "t-b")) == (3 * HOUR, HOUR)


def test_what_has_ended_is_not_excused(ledger: Ledger, clocks: Clock, sent: str) -> None:
    """Unless there is a further end: of another try, or of a second copy of its message."""
    add_receipts(ledger, [(sent, "x", receipt("a"))])
    looked(ledger, clocks, -2)
    assert set_back(ledger, sent) == 0
    add_receipts(ledger, [(sent, "y", receipt("a"))])
    assert set_back(ledger, sent) == 2 * HOUR


def test_another_process_sees_what_happened_before_it(
    ledger: Ledger, clocks: Clock, sent: str
) -> None:
    looked(ledger, clocks)
    clocks.jump(-1)
    later = ClockWatch(ledger)
    assert set_back(ledger, sent) == 0
    later.look()
    assert set_back(ledger, sent) == HOUR


def test_what_one_process_has_seen_is_no_news_to_the_next(
    ledger: Ledger, clocks: Clock, sent: str
) -> None:
    looked(ledger, clocks, -1)
    ClockWatch(ledger).look()
    assert set_back(ledger, sent) == HOUR


def test_a_machine_that_was_started_anew_has_another_monotonic_clock(
    ledger: Ledger, clocks: Clock, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked(ledger, clocks, -2)
    monkeypatch.setattr(clock, "boot_id", lambda: "another")
    clocks.now += 50_000
    clocks.jump(-3)
    ClockWatch(ledger).look()
    assert set_back(ledger, sent) == 2 * HOUR


def test_where_no_start_of_the_machine_is_known_nothing_is_compared_with_it(
    ledger: Ledger, clocks: Clock, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "boot_id", lambda: None)
    looked(ledger, clocks)
    clocks.jump(-3)
    ClockWatch(ledger).look()
    assert set_back(ledger, sent) == 0


def test_what_is_not_news_is_not_written(ledger: Ledger, clocks: Clock) -> None:
    looked(ledger, clocks, -1)
    noted = ledger.info.get_meta(CLOCK)
    watch = ClockWatch(ledger)
    clocks.sleep(0.5)
    watch.look()
    clocks.jumped -= timedelta(seconds=0.5)
    watch.look()
    assert ledger.info.get_meta(CLOCK) == noted


@pytest.mark.parametrize("known", ['"ahead": "1"', '"ahead": []', '"ahead": 1.0, "last": true'])
def test_a_row_that_cannot_be_read_is_told_of(ledger: Ledger, clocks: Clock, known: str) -> None:
    for noted in (f'{{"boot": "this", {known}}}', "no", "[]", "1"):
        ledger.info.set_meta(CLOCK, noted)
        with pytest.raises(LedgerError, match=r"r\.sqlite"):
            ClockWatch(ledger)
