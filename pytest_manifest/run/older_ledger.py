"""Refuse a ledger that is older than what was sent by it: a copy, or one without its last records.

Whoever copies ``RUN.sqlite`` alone from a session that was killed leaves what is in its write-ahead
log behind; and a copy that was resumed elsewhere has sent what this one calls unsent. By such a
ledger nothing can be sent, and nobody knows what the newest one says.
"""

from __future__ import annotations

from collections.abc import Collection

from pytest_manifest.errors import DispatchError
from pytest_manifest.ledger import STORE_EMPTIED, Ledger
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.text import listed

_SHOWN = 3


def refuse_read_on(ledger: Ledger, collector: ReceiptCollector) -> None:
    """Raise DispatchError where another reader has read on in the run's stream.

    Call it before the stream is read. Raises StackError where the store cannot be reached.
    """
    # One that was emptied and marked anew has lost records, too.
    if ledger.info.get_meta(STORE_EMPTIED) is None and collector.was_read_on():
        raise _refusal(ledger, "what workers reported since has been read by another")


def refuse_traces(
    ledger: Ledger, pending: PendingAttempts, unsent: Collection[str], seen: Collection[str]
) -> None:
    """Raise DispatchError where an attempt that the ledger calls unsent has left a trace.

    ``unsent``: those that were searched for, and that ``pending`` awaited; ``seen``: task ids that
    the search has seen in some place.
    """
    found = {one.entry for one in ledger.invariants.run_though_unsent()} if unsent else set()
    for task_id in unsent:
        row = ledger.attempts.get(task_id)
        if row is not None and (task_id in seen or _was_reported(pending, task_id)):
            found.add(row.entry)
    if found:
        names = listed(sorted(map(repr, found)), _SHOWN)
        raise _refusal(ledger, f"{names} are out, or have run, and it calls them unsent")


def _was_reported(pending: PendingAttempts, task_id: str) -> bool:
    """Return whether something was reported of an attempt that was awaited."""
    job = pending.by_task_id.get(task_id)
    return job is None or job.started is not None or job.unconfirmed is not None


def _refusal(ledger: Ledger, why: str) -> DispatchError:
    return DispatchError(
        f"{ledger.path}: is older than what was sent by it: {why}; nothing was sent: go on with "
        "the newest ledger of the run and its -wal file, or begin a new run with --manifest-rerun"
    )
