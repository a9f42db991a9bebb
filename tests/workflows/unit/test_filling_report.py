"""What a batch tells over time: stretches that are few, in which nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.filling.report import LEAST_STEP, MOST_POINTS, Report, binned

moments = st.floats(1.7e9, 1.7e9 + 86_400)


def test_a_batch_that_was_not_limited_tells_nothing() -> None:
    """Its evidence does not grow by empty plots."""
    assert Report().over_time() == {}


def test_what_was_allowed_and_refused_are_told_apart() -> None:
    """A level and a count, under names that are a plot's heading."""
    report = Report(allowed=[(1.7e9, 2), (1.7e9 + 0.1, 4)], refused=[(1.7e9, 1), (1.7e9 + 5, 1)])
    assert report.over_time() == {
        "calls allowed at a time": {"kind": "level", "points": [[1.7e9, 3.0]]},
        "calls refused": {"kind": "count", "points": [[1.7e9, 1.0], [1.7e9 + 5, 1.0]]},
    }


@given(st.lists(moments, min_size=1, max_size=300))
def test_stretches_are_few_and_nothing_is_lost(found: list[float]) -> None:
    """However long a batch was; each stretch begins before what is in it."""
    points = binned([(moment, 1) for moment in found], is_sum=True)
    assert 1 <= len(points) <= MOST_POINTS
    begins = [moment for moment, _ in points]
    assert sum(count for _, count in points) == len(found)
    assert begins == sorted(begins)
    assert begins[0] <= min(found) + LEAST_STEP / 100


@pytest.mark.parametrize(("is_sum", "value"), [(True, 6.0), (False, 3.0)])
def test_a_count_is_a_sum_and_a_level_a_mean(*, is_sum: bool, value: float) -> None:
    """Of all that is within a stretch."""
    assert binned([(1.7e9, 2), (1.7e9 + 0.2, 4)], is_sum=is_sum) == [(1.7e9, value)]
