"""The clock of pytest's machine is set while a run goes on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_manifest.errors import LedgerError
from pytest_manifest.ledger import Ledger
from pytest_manifest.run import clock
from pytest_manifest.run.clock import CLOCK, ClockWatch, merged_clock
from tests.unit.ledger_support import INFO
from tests.unit.run_world import Clock

HOUR = timedelta(hours=1)


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


def looked(ledger: Ledger, clocks: Clock, *hours: int) -> ClockWatch:
    """A watch that looks first, and then each time that the clock was set by so many hours."""
    watch = ClockWatch(ledger)
    watch.look()
    for one in hours:
        clocks.sleep(7)
        clocks.jump(one)
        watch.look()
    return watch


@pytest.mark.parametrize(
    ("hours", "back"),
    [([], 0), ([2], 0), ([-2], 2), ([1, -2], 2), ([-2, 1], 2), ([-2, 2, -1], 2), ([-1, -2], 3)],
)
def test_the_clock_counts_as_set_back_by_the_most_that_it_ever_was(
    ledger: Ledger, clocks: Clock, hours: list[int], back: int
) -> None:
    """From the moment at which it was ahead most: what was sent then is compared with any since."""
    watch = looked(ledger, clocks, *hours)
    assert watch.set_back == back * HOUR
    assert ClockWatch(ledger).set_back == back * HOUR  # whoever reads the ledger knows it


def test_another_process_sees_what_happened_before_it(ledger: Ledger, clocks: Clock) -> None:
    looked(ledger, clocks)
    clocks.jump(-1)
    later = ClockWatch(ledger)
    assert later.set_back == timedelta()
    later.look()
    assert later.set_back == HOUR


def test_a_machine_that_was_started_anew_has_another_monotonic_clock(
    ledger: Ledger, clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked(ledger, clocks, -2)
    monkeypatch.setattr(clock, "boot_id", lambda: "another")
    clocks.now += 50_000
    clocks.jump(-3)
    watch = ClockWatch(ledger)
    watch.look()
    assert watch.set_back == 2 * HOUR


def test_where_no_start_of_the_machine_is_known_nothing_is_compared_with_it(
    ledger: Ledger, clocks: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "boot_id", lambda: None)
    looked(ledger, clocks)
    clocks.jump(-3)
    watch = ClockWatch(ledger)
    watch.look()
    assert watch.set_back == timedelta()


def test_what_is_not_news_is_not_written(ledger: Ledger, clocks: Clock) -> None:
    watch = looked(ledger, clocks, -1)
    noted = ledger.info.get_meta(CLOCK)
    clocks.sleep(0.5)
    watch.look()
    clocks.jumped -= timedelta(seconds=0.5)
    watch.look()
    assert ledger.info.get_meta(CLOCK) == noted


@pytest.mark.parametrize("noted", ["no", "[]", "1", '{"set_back": "1"}', '{"set_back": 1}'])
def test_a_row_that_cannot_be_read_is_told_of(ledger: Ledger, noted: str) -> None:
    ledger.info.set_meta(CLOCK, noted)
    with pytest.raises(LedgerError, match=r"r\.sqlite"):
        ClockWatch(ledger)


def test_a_merged_run_has_the_most_of_all_of_them() -> None:
    assert merged_clock([]) == {}
    assert merged_clock([{}, {CLOCK: '{"boot": "b", "ahead": 1.0, "set_back": 0.0}'}]) == {}
    rows = [{CLOCK: f'{{"set_back": {back}}}'} for back in (3.0, 7.0, 5.0)]
    assert merged_clock([*rows, {}]) == {CLOCK: '{"set_back": 7.0}'}
