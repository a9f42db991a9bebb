"""How fast a run goes, by the moments at which its entries were judged."""

from __future__ import annotations

import pytest

from pytest_manifest.analysis.pace import Pace


def test_the_rate_is_that_of_the_last_minute() -> None:
    pace = Pace(0.0)
    assert pace.rate(5.0) is None
    for second in range(1, 301):  # ten a second, then one
        for _ in range(10 if second <= 240 else 1):
            pace.add(float(second), is_bad=False)
        if second == 200:
            assert pace.rate(200.0) == pytest.approx(10)
    assert pace.rate(300.0) == pytest.approx(1)
    assert pace.median_rate(300.0) == pytest.approx(10)
    assert pace.slow_since(300.0, 6.0) == 240.0


def test_a_slow_rate_is_of_enough_entries() -> None:
    """One entry in a minute is no rate."""
    pace = Pace(0.0)
    for minute in range(1, 21):
        pace.add(60.0 * minute, is_bad=False)
    assert pace.rate(1205.0) == pytest.approx(10 / 600)


def test_a_run_of_a_day_has_no_more_buckets_than_one_of_ten_minutes() -> None:
    pace = Pace(1000.0)
    for second in range(0, 86_400, 60):
        pace.add(1000.0 + second, is_bad=second % 120 == 0)
    assert len(pace.done) <= 600
    assert (sum(pace.done), sum(pace.failed)) == (1440, 720)
    assert pace.width * 600 >= 86_400 > pace.width * 300


def test_what_was_before_it_was_taken_up_is_no_pace() -> None:
    pace = Pace(0.0)
    for second in range(100):
        pace.add(float(second), is_bad=False)
    pace.begin(5000.0)
    assert pace.rate(5010.0) is None
    pace.add(50.0, is_bad=False)  # as it is read again
    assert pace.rate(5010.0) is None
    pace.add(5005.0, is_bad=False)
    assert pace.rate(5010.0) == pytest.approx(0.1)


def test_a_clock_that_is_set_back_loses_nothing() -> None:
    pace = Pace(0.0)
    pace.add(100.0, is_bad=False)
    pace.add(40.0, is_bad=False)
    pace.add(-5.0, is_bad=True)
    assert sum(pace.done) == 3
    assert pace.rate(110.0) == pytest.approx(2 / 110)


def test_the_end_is_foreseen_by_three_rates() -> None:
    """The last minute, ten minutes, the whole; none after a silence that is longer than it."""
    pace = Pace(0.0)
    assert pace.foresee(10.0, 5) is None
    for second in range(1, 1201):
        for _ in range(4 if second <= 600 else 2 if second <= 1140 else 1):
            pace.add(float(second), is_bad=False)
    found = pace.foresee(1200.0, 1900)
    assert found is not None
    assert found.seconds == pytest.approx(1000)
    assert found.soonest < 1900 / 2.95 < found.seconds < 1900 < found.latest
    assert found.before_at == 600.0
    assert found.before == pytest.approx(600 + (1900 + 1140) / 4, rel=0.01)
    assert pace.foresee(1230.0, 20) is None
    assert pace.foresee(1230.0, 1900) is not None
