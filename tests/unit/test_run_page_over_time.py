"""What jobs told over time, put together for the page: sums, means, and what is passed over."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import JsonValue

from pytest_manifest.analysis.records import EntryRecord
from pytest_manifest.reporting.run_page.columns import MOST_BINS, MOST_SERIES, OverTime
from tests.run_page_sample import BEGAN, sample_records
from tests.unit.test_run_page import written

NOW = BEGAN.timestamp()


def telling(record: EntryRecord, told: JsonValue) -> EntryRecord:
    """The record, with this as what its job told over time."""
    assert record.receipt is not None
    receipt = record.receipt.model_copy(update={"evidence": {"over_time": told}})
    return replace(record, receipt=receipt)


def series(kind: str, *points: Sequence[float]) -> dict[str, JsonValue]:
    """A series of points, each a moment after the run began and a number."""
    return {"kind": kind, "points": [[NOW + moment, value] for moment, value in points]}


def collected(*told: JsonValue, hours: float = 1.0) -> list[dict[str, object]]:
    """What the page gets of receipts with these as their ``over_time``."""
    (record,) = sample_records(1, bad=0.0)
    assert record.receipt is not None
    found = OverTime(BEGAN, BEGAN + timedelta(hours=hours))
    for one in told:
        found.add(record.receipt.model_copy(update={"evidence": {"over_time": one}}))
    found.add(None)
    return found.document()


def test_the_points_of_all_jobs_are_put_together(tmp_path: Path) -> None:
    """A level is a mean, counts are a sum, in stretches from the run's beginning on."""
    records = list(sample_records(3, bad=0.0))
    records[0] = telling(
        records[0],
        {"refused": series("count", (1.0, 2), (1.1, 1)), "allowed": series("level", (1.0, 4))},
    )
    records[1] = telling(
        records[1],
        {"allowed": series("level", (1.1, 8), (2.0, 3)), "refused": series("count", (9, 5))},
    )
    page = written(tmp_path, records)
    assert page.data["over_time"] == [
        {"name": "allowed", "kind": "level", "step": 0.25, "at": [1.0, 2.0], "values": [6, 3]},
        {"name": "refused", "kind": "count", "step": 0.25, "at": [1.0, 9.0], "values": [3, 5]},
    ]


def test_a_run_whose_jobs_tell_nothing_has_no_series(tmp_path: Path) -> None:
    """The section stays hidden."""
    page = written(tmp_path, list(sample_records(3)))
    assert page.data["over_time"] == []
    assert '<section id="overtime" data-name="Over time" hidden>' in page.text


@pytest.mark.parametrize(
    "told",
    [
        None,
        "text",
        [1, 2],
        {"a": None},
        {"a": {"kind": "level"}},
        {"a": {"kind": "other", "points": [[NOW, 1]]}},
        {"a": {"kind": "level", "points": "no"}},
        {"a": {"kind": "level", "points": [1, [NOW], [NOW, 1, 2], [NOW, "1"], [NOW, True]]}},
        {"a": {"kind": "level", "points": [[NOW, 1e300], [NOW, 10**400], [10**400, 1]]}},
        {"a": {"kind": "count", "points": [[NOW - 1000, 1], [NOW + 5000, 1], [0, 1]]}},
    ],
)
def test_what_is_of_another_form_or_time_is_passed_over(told: JsonValue) -> None:
    """It may be evidence of a user's own, or of a clock that is wrong."""
    assert collected(told) == []


def test_many_points_are_few_stretches() -> None:
    """Of the same length, in which nothing is lost; so a page stays small."""
    random.seed(1)
    moments = [random.uniform(0, 3600) for _ in range(20_000)]
    told: JsonValue = {"refused": series("count", *((moment, 1) for moment in moments))}
    (found,) = collected(told)
    at, values = found["at"], found["values"]
    assert isinstance(at, list)
    assert isinstance(values, list)
    assert MOST_BINS / 2 <= len(at) <= MOST_BINS
    assert sum(values) == 20_000
    assert at == sorted(at)
    assert at[-1] <= max(moments)


def test_there_are_no_more_series_than_fit() -> None:
    """Whoever tells of thousands gets the first ones; their names are cut, and shown as text."""
    told: dict[str, JsonValue] = {
        f"\x1b[31m{n}{'x' * 500}": series("level", (1, 1)) for n in range(MOST_SERIES + 5)
    }
    found = collected(told)
    assert len(found) == MOST_SERIES
    assert all(len(str(one["name"])) < 200 for one in found)
    assert "\x1b" not in json.dumps(found, ensure_ascii=False)
