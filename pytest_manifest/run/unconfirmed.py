"""Hold back ends that the result store alone reports, or has in a form that cannot be read here.

Every final receipt passes here on its way to the ledger.

Celery 5.7 has every worker that hears of a revocation store it, also for a job that waits in a
queue, or that another worker runs. And a task can store an end of its own in the middle of its work
(``update_state``); our worker, which reported the start, would report the real end. So the job is
searched for instead: only where it is then missing has it come to that end.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterable, Sequence

from pytest_manifest.ledger import Start
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.pending import PendingAttempt, PendingAttempts
from pytest_manifest.run.recovery import JobSearch
from pytest_manifest.schema import Receipt
from pytest_manifest.verdict import is_revocation_notice

FinalReceipt = tuple[str, str | None, Receipt]
"""Task id, execution, receipt."""


class UnconfirmedEnds:
    """Keep ends that only the store reports at the pending attempts. For one thread."""

    def __init__(self, pending: PendingAttempts, search: JobSearch | None, facts: FactLog) -> None:
        self._pending = pending
        self._facts = facts
        self._search = search
        self._confirmed: set[str] = set()
        self._holds_revoked = False

    def hold_revoked(self) -> None:
        """Hold back from here on also what a worker itself says that it revoked before it began it.

        The run takes back what waits, as its time is over: then that is why the job did not run. A
        worker drops a job that it has taken in advance once it could begin it.
        """
        self._holds_revoked = True

    def confirm_missing(self, nowhere: Iterable[str]) -> list[str]:
        """Count what the store reports of these from here on: no worker has them any more.

        Not where the process is gone: it may have died in its work, which the store cannot tell.
        Returns which of them that is.
        """
        found = [task_id for task_id in nowhere if self.is_to_be_confirmed(task_id)]
        self._confirmed.update(found)
        return found

    def is_to_be_confirmed(self, task_id: str) -> bool:
        """Return whether the store has told an end of this one since it was searched for last.

        It was on its way to a worker then, and may have run since. Not where its process is gone.
        """
        job = self._pending.by_task_id.get(task_id)
        if job is None or job.unconfirmed is None or is_revocation_notice(job.unconfirmed):
            return False
        return task_id not in self._confirmed and not self._facts.has_died(job)

    def confirmed(
        self, finals: Iterable[FinalReceipt], starts: Sequence[Start] = ()
    ) -> list[FinalReceipt]:
        """Return the receipts that count; search soon for a job with a new unconfirmed end.

        Such an end is found in the store again at each poll.
        """
        receipts, fresh = [], False
        started = {start.task_id for start in starts}
        for final in finals:
            job = self._pending.by_task_id.get(final[0])
            if not self._is_doubtful(final, job, started):
                receipts.append(final)
                continue
            self._facts.reported(*final)
            if job is not None and job.unconfirmed is None:
                job.unconfirmed, fresh = final[2], True
        if fresh and self._search is not None:
            self._search.schedule(time.monotonic())
        return receipts

    def _is_doubtful(
        self, final: FinalReceipt, job: PendingAttempt | None, started: Container[str]
    ) -> bool:
        task_id, _, receipt = final
        if is_revocation_notice(receipt):
            return True
        if self._holds_revoked and job is not None and receipt.state == "revoked":
            return not (job.is_running or task_id in started)
        if receipt.source != "backend" or job is None or self._search is None:
            return False
        return (job.is_running or task_id in started) and task_id not in self._confirmed
