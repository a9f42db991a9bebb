"""The cells of the day, and what the whole table must hold; ``make stacks`` runs all of them."""

from __future__ import annotations

import pytest

from pytest_manifest.broker.workers import UNTIMED
from tests.conftest import missing
from tests.contract.work import WORK
from tests.services import ServiceUnavailableError
from tests.stacks.__main__ import read_results
from tests.stacks.cells import CELLS, PREFORK
from tests.stacks.outcomes import summary_of
from tests.stacks.page import PAGE, page, tables
from tests.stacks.running import run_cell
from tests.turns import part_of_the_day

SAMPLE = (
    "redis-tls-settings/redis-tls-settings/prefork/instrumented",
    "rabbitmq-quorum/rpc/prefork/instrumented",
    "rabbitmq/mariadb/prefork/stock",
    "valkey/valkey/gevent/instrumented",
    "sqs/valkey/prefork/instrumented",
    "valkey/django-db/prefork/stock",
    "valkey/django-db/prefork/instrumented",
)
"""The cells that differ most from one another, and from the contract's own stacks."""
DAYS = 3
"""In which the whole sample is run, a part each day."""

HONEST = ("unknown", "pending")
TRUE = (
    "does not support chords",
    "can not serialize 'datetime.datetime'",
    "cannot represent an object",
)
"""Celery's own words of a store and of a format, and the true ends of jobs that ask for these."""
NO_END = "The job did not finish before the run's deadline"
ENDLESS = {
    ("valkey/valkey/prefork/instrumented/task protocol 1", "by a chain that fails"),
    *(
        (cell.name, "leaves")
        for cell in CELLS.values()
        if cell.pool != PREFORK and not cell.is_instrumented
    ),
    *(
        (cell.name, entry)
        for cell in CELLS.values()
        if cell.broker == "filesystem" and not cell.is_instrumented
        for entry in ("ignored", "expected to be ignored", "revoked")
    ),
}
"""Celery tells nobody of a chain of protocol 1 that breaks, nor of sys.exit outside of prefork; a
stock worker tells of nothing that is ignored or revoked, and a folder cannot be searched."""
SECONDLY = {
    (cell.name, entry)
    for cell in CELLS.values()
    if cell.broker in ("filesystem", "sqlite", "postgresql") and not cell.is_instrumented
    for entry in ("too long", "beyond its own limit", "beyond the smaller limit")
}
"""Without an event loop, as with these brokers, Celery looks at time limits once a second, and a
stock worker tells no runtime: what is over before has passed, also beyond its limit."""


@pytest.mark.live
@pytest.mark.parametrize("name", part_of_the_day(SAMPLE, DAYS))
def test_a_cell_is_as_the_table_says(name: str) -> None:
    """Each of its jobs gets the verdict that the page tells, and receipts lack what it tells."""
    try:
        told = summary_of(run_cell(CELLS[name]))
    except ServiceUnavailableError as unavailable:
        missing(str(unavailable))
    table = read_results()[name]
    assert _comparable(told) == _comparable(table)


def _comparable(told: dict[str, object]) -> dict[str, object]:
    others = told["others"]
    assert isinstance(others, dict)
    # A replaced job may wait behind others for longer than it is searched for without starts.
    statuses = {
        entry: status
        for entry, (status, _) in others.items()
        if status != "unknown" or WORK[entry].task != "contract.replace"
    }
    return {"others": statuses} | {key: told[key] for key in ("error", "lacks", "asked")}


def test_no_cell_says_what_is_not_so() -> None:
    """What a stack cannot tell is unknown or pending; what it says of a job is true of it.

    That nothing measures how long a job runs is said before it is sent.
    """
    others = {
        (name, entry): (status, sentence)
        for name, told in read_results().items()
        for entry, (status, sentence) in told["others"].items()
        if status != "passed" or not any(UNTIMED in notice for notice in told["notices"])
    }
    wrong = {
        place: status
        for place, (status, sentence) in others.items()
        if status not in HONEST
        if not any(words in sentence for words in TRUE)
        if not (place in ENDLESS and NO_END in sentence)
        if not (place in SECONDLY and status == "passed")
    }
    assert wrong == {}


def test_the_page_is_of_the_results() -> None:
    """Nobody has written into it by hand."""
    results = read_results()
    assert PAGE.read_text("utf-8") == page(results)
    for name, text in tables(results).items():
        assert (PAGE.parent / "tables" / name).read_text("utf-8") == text, name
