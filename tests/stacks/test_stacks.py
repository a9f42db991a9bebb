"""A sample of the cells, run, and what the table as a whole must hold; ``make stacks`` runs all."""

from __future__ import annotations

import pytest

from tests.conftest import missing
from tests.services import ServiceUnavailableError
from tests.stacks.__main__ import read_results
from tests.stacks.cells import CELLS
from tests.stacks.outcomes import summary_of
from tests.stacks.page import PAGE, page
from tests.stacks.running import run_cell

SAMPLE = (
    "redis-tls-settings/redis-tls-settings/prefork/instrumented",
    "rabbitmq-quorum/rpc/prefork/instrumented",
    "rabbitmq/mariadb/prefork/stock",
)
"""The cells that differ most from one another, and from the contract's own stacks."""


@pytest.mark.live
@pytest.mark.parametrize("name", SAMPLE)
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
    statuses = {entry: status for entry, (status, _) in others.items()}
    return {"others": statuses} | {key: told[key] for key in ("error", "lacks", "asked")}


def test_the_page_is_of_the_results() -> None:
    """Nobody has written into it by hand."""
    assert PAGE.read_text("utf-8") == page(read_results())
