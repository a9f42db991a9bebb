"""What the result store alone tells may be no receipt: the job is looked for instead.

Celery 5.7 has every worker that hears of a revocation store it, also for a job that waits in a
queue, or that another worker runs. And a task can store an end of its own in the middle of its work
(``update_state``); a worker of ours, which said that it began the job, would tell its real one.
Only where the job is then found nowhere has it come to that end.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence

from pytest_manifest.ledger import Start
from pytest_manifest.results.gatherer import ReceiptCollector
from pytest_manifest.run.pending import PendingAttempt, PendingAttempts
from pytest_manifest.run.recovery import JobSearch, is_alive
from pytest_manifest.schema import Receipt, VerdictStatus
from pytest_manifest.verdict import is_hearsay

Final = tuple[str, str | None, Receipt]
"""Task id, execution, receipt."""


class UnconfirmedEnds:
    """Keeps such words at the flights that they are about. For one thread."""

    def __init__(self, pending: PendingAttempts, search: JobSearch | None) -> None:
        self._pending = pending
        self._search = search
        self._confirmed: set[str] = set()

    def confirm_missing(self, nowhere: Iterable[str]) -> None:
        """What the store tells of these counts from here on: no worker has them any more. Not where
        the process is gone: it may have died in its work, and nobody can tell."""
        pending = (self._pending.by_task_id.get(task_id) for task_id in nowhere)
        told = [job for job in pending if job is not None and job.hearsay is not None]
        self._confirmed |= {job.task_id for job in told if is_alive(job) is not False}

    def confirmed(self, finals: Iterable[Final], starts: Sequence[Start] = ()) -> list[Final]:
        """The receipts among these; of a job that hearsay is told of for the first time, it is
        looked for soon. It is found in the store at each look."""
        receipts, fresh = [], False
        begun = {start.task_id for start in starts}
        for final in finals:
            job = self._pending.by_task_id.get(final[0])
            if not self._is_doubtful(final, job, begun):
                receipts.append(final)
                continue
            if job is not None and job.hearsay is None:
                job.hearsay, fresh = final[2], True
        if fresh and self._search is not None:
            self._search.schedule(time.monotonic())
        return receipts

    def _is_doubtful(self, final: Final, job: PendingAttempt | None, begun: Container[str]) -> bool:
        task_id, _, receipt = final
        if is_hearsay(receipt):
            return True
        if receipt.source != "backend" or job is None or self._search is None:
            return False
        return (job.is_running or task_id in begun) and task_id not in self._confirmed


FOR_WANT_OF_A_RESULT = frozenset({"lost", "crashed", "timed_out", "revoked", "unknown", "pending"})


class UnreadableResults:
    """For one run, and its thread."""

    def __init__(self, gatherer: ReceiptCollector) -> None:
        self._gatherer = gatherer

    def reason(self, task_id: str) -> str:
        """A phrase for what the store has of it and nobody can read; "" where there is nothing."""
        why = self._gatherer.unreadable_reason(task_id)
        return f"something is stored for it that cannot be read here: {why}" if why else ""

    def adjust(
        self, job: PendingAttempt, kind: VerdictStatus, note: str
    ) -> tuple[VerdictStatus, str]:
        """What to say of an attempt that no receipt was read of, where this would be said."""
        phrase = self.reason(job.task_id)
        if not phrase or kind not in FOR_WANT_OF_A_RESULT:
            return kind, note
        return "unknown", phrase
