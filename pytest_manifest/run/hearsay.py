"""What the result store tells of a revocation is no receipt: the job is looked for instead.

Celery 5.7 has every worker that hears of one store it, also for a job that waits in a queue, or
that another worker runs. Only where the job is then found nowhere has it come to that end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from pytest_manifest.run.flights import Flights
from pytest_manifest.run.search import Search
from pytest_manifest.schema import Receipt
from pytest_manifest.verdict import is_hearsay

Final = tuple[str, str | None, Receipt]
"""Task id, execution, receipt."""


class Hearsay:
    """Keeps such words at the flights that they are about. For one thread."""

    def __init__(self, flights: Flights, search: Search | None) -> None:
        self._flights = flights
        self._search = search

    def without(self, finals: Iterable[Final]) -> list[Final]:
        """The receipts among these; of a revocation that is told for the first time, the job is
        looked for soon. It is found in the store at each look."""
        receipts, fresh = [], False
        for final in finals:
            if not is_hearsay(final[2]):
                receipts.append(final)
                continue
            flight = self._flights.by_task_id.get(final[0])
            if flight is not None and flight.hearsay is None:
                flight.hearsay, fresh = final[2], True
        if fresh and self._search is not None:
            self._search.look_soon(time.monotonic())
        return receipts
