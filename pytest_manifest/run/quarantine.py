"""Count the deaths that a job has caused, whoever sent it again, and quarantine it in time."""

from __future__ import annotations

from pytest_manifest.ledger import Ledger
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.schema import Verdict
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH
from pytest_manifest.verdict import evaluate
from pytest_manifest.verdict.problems import KillsWorkers


class Quarantine:
    """Count deaths by the ledger. ``kills``: how many quarantine an entry.

    The run itself sends a crashed entry again, as another attempt; the broker delivers again what
    a dead process had not acknowledged; and Celery sends a retry (``retry_on_worker_lost``).
    """

    def __init__(self, ledger: Ledger, kills: int) -> None:
        self._ledger = ledger
        self._kills = kills

    def of_crashed(self, job: PendingAttempt, verdict: Verdict) -> Verdict:
        """Return the verdict on the entry of a job that has crashed: quarantined, if too often."""
        deaths = self._deaths(job)
        return verdict if deaths < self._kills else _quarantined(job, deaths)

    def _deaths(self, job: PendingAttempt) -> int:
        return self._earlier(job) + self._retried(job.task_id) + 1

    def _earlier(self, job: PendingAttempt) -> int:
        """Count the deaths in the entry's attempts before this one."""
        rows = self._ledger.attempts.of_entry(job.entry.id)
        earlier = [row for row in rows if row.attempt < job.number]
        crashed = sum(row.status == "crashed" for row in earlier)
        return crashed + sum(self._retried(row.task_id) for row in earlier)

    def _retried(self, task_id: str) -> int:
        """Count the deaths after which Celery sent the job again."""
        ends = self._ledger.events.handed_on(task_id)
        return sum(end.how == HANDED_ON_AFTER_DEATH for end in ends)


def _quarantined(job: PendingAttempt, deaths: int) -> Verdict:
    why = KillsWorkers(deaths=deaths, pids=())
    return evaluate(job.entry, None, attempt=job.number, problem="quarantined", why=why)
