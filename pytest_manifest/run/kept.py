"""Receipts that the ledger has of jobs without a verdict: they are not read from the stack again.

A session that follows some entries reads the whole run's stream, and keeps what it hears of the
others; so does one that is killed between keeping a receipt and judging by it.
"""

from __future__ import annotations

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.flights import Flights
from pytest_manifest.run.judging import Bench
from pytest_manifest.verdict import is_hearsay


def judge_what_is_kept(ledger: Ledger, flights: Flights, bench: Bench) -> None:
    """Settle what is in flight and has a receipt already, by all that was said of it."""
    with ledger.transaction():
        for flight in list(flights.by_task_id.values()):
            kept = [one for _, one in ledger.receipts(flight.task_id) if not is_hearsay(one)]
            if kept:
                flights.land(flight.task_id)
                ledger.record_verdicts([bench.judge(flight, kept[0])])
