"""Notice that this machine's clock is set back while a run goes on: its jobs seem to end before
they were sent then."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Final

from loguru import logger

from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.processes import boot_id

CLOCK: Final = "clock"
"""The ledger's key for what is known of the clock: JSON, see :class:`ClockWatch`."""
NOTICED: Final = 1.0
"""Seconds by which it must have been set to be noted: less than that is drift."""


class ClockWatch:
    """Tell by how far the clock was set back since a run began.

    The monotonic clock, which nobody sets, goes on from one process to the next until the machine
    is started anew. So the ledger has by how much the clock was ahead of it, at most, and since
    which start; and how far it has fallen behind that. Call :meth:`look` often: what is set back
    and forth between two looks is not seen.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        with ledger.parse_errors():
            noted: dict[str, object] = json.loads(ledger.info.get_meta(CLOCK) or "{}")
            self._set_back = _seconds(noted)
            ahead = noted.get("ahead")
            known = isinstance(ahead, float) and noted.get("boot") == boot_id() is not None
            self._ahead = ahead if known and isinstance(ahead, float) else None

    @property
    def set_back(self) -> timedelta:
        return timedelta(seconds=self._set_back)

    def look(self) -> None:
        """Compare the clocks, and write down what is new, before anything is judged by it."""
        ahead = utc_now().timestamp() - time.monotonic()
        most = ahead if self._ahead is None else max(self._ahead, ahead)
        back = most - ahead
        is_new = back > self._set_back + NOTICED
        if self._ahead is not None and most <= self._ahead + NOTICED and not is_new:
            return
        self._ahead = most
        if is_new:
            self._set_back = back
            logger.warning("this machine's clock was set back by {:.0f} s", back)
        noted = {"boot": boot_id(), "ahead": most, "set_back": self._set_back}
        self._ledger.info.set_meta(CLOCK, json.dumps(noted))


def merged_clock(metadata: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Return the ledger row of a merged run of those with this metadata."""
    back = max((_seconds(json.loads(one.get(CLOCK) or "{}")) for one in metadata), default=0.0)
    return {CLOCK: json.dumps({"set_back": back})} if back else {}


def _seconds(noted: Mapping[str, object]) -> float:
    found = noted.get("set_back", 0.0)
    if not isinstance(found, float):
        raise TypeError("the clock's setting back is no number of seconds")
    return found
