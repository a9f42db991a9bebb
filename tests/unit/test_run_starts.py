"""Starts that are reported again: of the same process, of another one, or made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.casebook import add_repeated_starts
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.schema.facts import Started
from tests.reports import add_starts, started
from tests.unit.ledger_support import INFO, MOMENT

TASK_ID = "t-a"
BEGAN, ENDED = MOMENT + timedelta(seconds=2), MOMENT + timedelta(seconds=3)


def start(execution: str = "x", **fields: Any) -> Started:
    known = started(TASK_ID, execution, BEGAN, 0, "w@h", "h", 7, redelivered=False)
    return replace(known, **fields)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create(tmp_path / "run.sqlite", INFO) as made:
        made.attempts.plan([(TASK_ID, "a", 1, 0), ("t-b", "b", 1, 1)])
        yield made


def clashes(ledger: Ledger, *starts: Started) -> list[str]:
    """The jobs of the starts that differ from those before, once these are recorded."""
    facts = FactLog(ledger)
    for one in starts:
        add_repeated_starts(ledger, facts, one.job, [one])
    facts.write()
    told = Counter(found.job for found in ledger.facts.of_kind(Started))
    kept = Counter(dict.fromkeys([TASK_ID, "t-b"], 0))
    for task_id in kept:
        kept[task_id] = len(ledger.events.starts(task_id))
    return list((told - kept).elements())


@pytest.mark.parametrize(
    ("fields", "is_made_up"),
    [
        ({}, False),
        ({"redelivered": True}, False),
        ({"started_at": ENDED}, True),
        ({"retries": 1}, True),
        ({"worker": "v@h"}, True),
        ({"host": "i"}, True),
        ({"execution": "y", "pid": 8}, False),
        ({"job": "t-b", "pid": 8}, False),
    ],
)
def test_two_records_of_one_start_are_the_same(
    ledger: Ledger, fields: Mapping[str, Any], *, is_made_up: bool
) -> None:
    """Else one of them is made up, and so may be the end."""
    add_starts(ledger, [start("z"), start()])
    assert clashes(ledger, start(**fields)) == ([TASK_ID] if is_made_up else [])


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("pids", [[7, 8], [7, 8, 9]])
def test_a_pool_that_gives_a_job_to_another_process_starts_it_again(
    ledger: Ledger, pids: list[int], *, again: bool
) -> None:
    """Its worker names the execution once; each process is a start, and the last one's has its end.

    Records that are read once more, as a later session does, add none.
    """
    all_of_them = [start(pid=pid) for pid in pids]
    reported = [start("z", retries=1), *all_of_them, *(all_of_them if again else ())]
    assert clashes(ledger, *reported) == []
    found = sorted((one.execution, one.pid) for one in ledger.events.starts(TASK_ID))
    assert found == [*(("x", pid) for pid in pids), ("z", 7)]


def test_a_start_that_was_given_again_is_repeated_as_it_was(ledger: Ledger) -> None:
    """Another time for it is made up, as for any other."""
    assert clashes(ledger, start(), start(pid=8), start(started_at=ENDED)) == [TASK_ID]
