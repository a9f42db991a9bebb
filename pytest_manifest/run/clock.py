"""Notice that this machine's clock is set back while a run goes on: its jobs seem to end before
they were sent then."""

from __future__ import annotations

import json
import time
from typing import Final

from loguru import logger

from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.processes import boot_id
from pytest_manifest.schema.run_facts import SetBack

CLOCK: Final = "clock"
"""The ledger's key for what is known of the clock: JSON, see :class:`ClockWatch`."""
NOTICED: Final = 1.0
"""Seconds by which it must have been set to be noted: less than that is drift."""


class ClockWatch:
    """Record of what is in flight that the clock was set back meanwhile, and by how much.

    The monotonic clock, which nobody sets, goes on from one process to the next until the machine
    is started anew. So the ledger has by how much the clock was ahead of it, at most and when that
    last changed, and since which start. Call :meth:`look` often: what is set back and forth between
    two looks is not seen.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        with ledger.parse_errors():
            noted: dict[str, object] = json.loads(ledger.info.get_meta(CLOCK) or "{}")
            known = noted.get("boot") == boot_id() is not None
            self._most = _seconds(noted, "ahead") if known else None
            last = _seconds(noted, "last") if known else None
            self._last = self._most if last is None else last

    def look(self) -> None:
        """Compare the clocks, and write down what is new, before anything is judged by it."""
        ahead = utc_now().timestamp() - time.monotonic()
        last, most = self._last, self._most
        if last is not None and abs(ahead - last) <= NOTICED:
            return
        self._last = ahead
        self._most = ahead if most is None else max(most, ahead)
        if last is not None and ahead < last:
            logger.warning("this machine's clock was set back by {:.0f} s", last - ahead)
            by, most = last - ahead, self._most - ahead
            with self._ledger.writing():
                self._ledger.facts.append([(None, SetBack(seq=0, at=utc_now(), by=by, most=most))])
        noted = {"boot": boot_id(), "ahead": self._most, "last": ahead}
        self._ledger.info.set_meta(CLOCK, json.dumps(noted))


def _seconds(noted: dict[str, object], name: str) -> float | None:
    found = noted.get(name)
    if found is not None and not isinstance(found, float):
        raise TypeError("how far the clock was ahead is no number of seconds")
    return found
