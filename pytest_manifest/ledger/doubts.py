"""Whether a job that was begun would be known to have been, by all that the ledger knows."""

from __future__ import annotations

from typing import Final

from pytest_manifest.ledger.store import Ledger

STOCK_WORKERS: Final = "plain_workers"
"""The ledger's key for workers that were seen without our instrumentation."""
GAVE_UP: Final = "gave_up"
"""The ledger's key for why a run gave up; what workers said at that time may have got lost."""
STORE_EMPTIED: Final = "emptied"
"""The ledger's key for a result store that has lost what workers said."""
UNVERIFIED_WORKERS: Final = "strangers"
"""The ledger's key for workers of which only the name is known yet; empty where there are none."""
OTHER_BROKER: Final = "other_broker"
"""The ledger's key for the broker that jobs were sent to, once another was looked at for them."""
_PERMANENT: Final = (STORE_EMPTIED, GAVE_UP, STOCK_WORKERS, OTHER_BROKER)


def has_all_starts(ledger: Ledger, *, some_start: bool) -> bool:
    """Whether workers say when they begin a job, and all of that has been kept.

    ``some_start``: at least one of them has said so.
    """
    return (some_start or ledger.info().is_private) and not may_lack_starts(ledger)


def may_lack_starts(ledger: Ledger) -> bool:
    """Whether a worker may have begun a job without a word, or its word may be lost."""
    lasting = any(ledger.get_meta(doubt) is not None for doubt in _PERMANENT)
    return lasting or bool(ledger.get_meta(UNVERIFIED_WORKERS))
