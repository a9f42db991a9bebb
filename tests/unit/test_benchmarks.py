"""What the benchmarks tell: the guard of ratios, and the page that is made of their results."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.__main__ import BENCHMARKS, PAGE, QUICK, RESULTS
from benchmarks.guard import worse_ratios
from benchmarks.page import nearness, page


def row(ratio: float, **fields: Any) -> dict[str, Any]:
    """A figure as results.json has it."""
    made = {"name": "dispatch", "peer": "group", "ratio": ratio, "goal": 3.0, "at_most": False}
    return made | {"unit": "x", "values": [ratio], "details": {}, "met": ratio >= 3} | fields


@pytest.mark.parametrize(
    ("found", "before", "fields", "worse"),
    [
        (3.3, 4.0, {}, False),
        (3.0, 4.0, {}, True),
        (9.0, 4.0, {}, False),
        (1.2, 1.0, {"at_most": True}, False),
        (1.3, 1.0, {"at_most": True}, True),
        (0.1, 1.0, {"at_most": True}, False),
        (0.1, 9.0, {"goal": None}, False),
    ],
)
def test_a_ratio_is_worse_on_its_own_side(
    found: float, before: float, fields: dict[str, Any], worse: bool
) -> None:
    """By more than a quarter, where it has a goal; a better one is never worse."""
    lines = worse_ratios([row(found, **fields)], [row(before, **fields)])
    assert lines == (
        [f"dispatch, against group: {found:.2f} x, {before:.2f} before"] if worse else []
    )


def test_a_new_figure_is_held_against_nothing() -> None:
    assert worse_ratios([row(0.1)], [row(9.0, name="another")]) == []


def test_the_page_shows_the_newest_results() -> None:
    """It was not written by hand, nor forgotten when they were taken anew."""
    document = json.loads(RESULTS.read_text("utf-8"))
    assert PAGE.read_text("utf-8") == page(document)
    assert {one["benchmark"] for one in document["figures"]} == set(BENCHMARKS) == set(QUICK)


def test_the_page_says_which_goals_are_missed() -> None:
    """In words and in the plot, whichever side the goal is on."""
    rows = [
        row(2.0),
        row(4.0, name="other"),
        row(2.0, name="cost", goal=1.0, at_most=True, met=False),
    ]
    machine = {"day": "2026-01-01", "cores": 2, "memory_gb": 8, "processor": "p", "packages": {}}
    text = page({"machine": machine | {"system": "s", "python": "3"}, "figures": rows})
    goals = [line.split(" | ")[-1] for line in text.splitlines() if line.startswith("| ")]
    assert goals[1:] == ["**not met** |", "met |", "**not met** |"]
    assert [round(near, 2) for near, _ in nearness(rows).values()] == [0.67, 1.33, 0.5]
