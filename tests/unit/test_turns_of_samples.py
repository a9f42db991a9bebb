"""Parts of the samples that take turns."""

from __future__ import annotations

import pytest

from tests.turns import DAY_VARIABLE, part_of_the_day


@pytest.mark.parametrize(("count", "parts"), [(62, 3), (7, 3), (2, 3), (9, 1)])
def test_each_item_has_one_day_in_so_many(
    count: int, parts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is left out, and none comes twice before all others have come."""
    played: list[int] = []
    for day in range(739_000, 739_000 + parts):
        monkeypatch.setenv(DAY_VARIABLE, str(day))
        played += part_of_the_day(range(count), parts)
    assert sorted(played) == list(range(count))


def test_processes_that_begin_on_two_days_play_the_same_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first one leaves its day to those that it starts."""
    monkeypatch.delenv(DAY_VARIABLE, raising=False)
    first = part_of_the_day(range(10), 3)
    assert part_of_the_day(range(10), 3) == first
