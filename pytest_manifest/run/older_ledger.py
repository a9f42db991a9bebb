"""Tell a ledger that is older than what was sent by it: a copy, or one without its last records.

Whoever copies ``RUN.sqlite`` alone from a session that was killed leaves what is in its write-ahead
log behind; and a copy that was resumed elsewhere has sent what this one calls unsent. What
such a ledger calls unsent may have been sent, and so may each other attempt.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from pytest_manifest.ledger import OLDER, STORE_EMPTIED, TO_REUSE, Ledger
from pytest_manifest.ledger.facts import Owned
from pytest_manifest.results.collector import ReceiptCollector
from pytest_manifest.run.doubts import note_emptied
from pytest_manifest.run.fact_log import stamp
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.run.resume_rules import NOT_SENT
from pytest_manifest.run.state import RunState
from pytest_manifest.schema.facts import Sending, SendResult
from pytest_manifest.text import plural

NOTE = "a newer copy of this ledger may have sent it"
"""The note of an attempt that this ledger called unsent."""


def was_read_on(ledger: Ledger, collector: ReceiptCollector) -> bool:
    """Return whether another reader has read on in the run's stream, and record that.

    Asked before the stream is read, so that it is not taken for emptied. Raises StackError where
    the store cannot be reached.
    """
    # One that was emptied and marked anew has lost records, too.
    if ledger.info.get_meta(STORE_EMPTIED) is not None or not collector.was_read_on():
        return False
    note_emptied(ledger, OLDER)
    return True


def has_traces(
    ledger: Ledger, pending: PendingAttempts, unsent: Collection[str], seen: Collection[str]
) -> bool:
    """Return whether an attempt that the ledger calls unsent has left a trace.

    ``unsent``: those that were searched for, and that ``pending`` awaited; ``seen``: task ids that
    the search has seen in some place.
    """
    if not unsent:
        return False
    if any(True for _ in ledger.promises.run_though_unsent()):
        return True
    return any(task_id in seen or _was_told(pending, task_id) for task_id in unsent)


def _was_told(pending: PendingAttempts, task_id: str) -> bool:
    """Return whether something was reported of an attempt that was awaited."""
    job = pending.by_task_id.get(task_id)
    return job is None or job.started is not None or job.unconfirmed is not None


def doubt_unsent(state: RunState, ledger: Ledger) -> None:
    """Record that what is called unsent may have been sent, and that starts may be unknown; say so.

    Also of entries that are not selected: a later session may find no trace of these any more. And
    earlier passes that were to be reused have been looked for already, by the newer copy.
    """
    unsent = [row.task_id for row in ledger.attempts.newest() if row.state in NOT_SENT]
    with ledger.transaction():
        ledger.attempts.mark(unsent, "uncertain", note=NOTE)
        ledger.facts.append(_doubted_sendings(ledger, unsent))
        note_emptied(ledger, OLDER)
        ledger.info.set_meta(TO_REUSE, "")
    state.warnings.append(
        f"{state.files.ledger} is older than what was sent by it: jobs are out, or have run, that "
        f"it calls unsent. It is a copy that was resumed elsewhere, or lacks the -wal file "
        f"that was beside it. So {plural(len(unsent), 'entry')} may have been sent, and what is "
        "nowhere and not idempotent is left; go on with the newest ledger, if there is one"
    )


def _doubted_sendings(ledger: Ledger, task_ids: Iterable[str]) -> Iterator[Owned]:
    """Yield the facts that these may have been sent, at a time that only another ledger has."""
    for name in task_ids:
        row = ledger.attempts.get(name)
        if row is not None:
            known = (one for one in ledger.facts.of_entry(row.entry) if one.job == name)
            base, number = stamp(name), 1 + sum(isinstance(one, Sending) for one in known)
            yield row.entry, Sending(**base, number=number, sent_at=None)
            end = SendResult(**base, number=number, outcome="uncertain", error=NOTE)
            yield row.entry, end
