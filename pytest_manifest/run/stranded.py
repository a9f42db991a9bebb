"""Say which jobs a worker has taken that no worker which answers has."""

from __future__ import annotations

from datetime import datetime, timezone

from pytest_manifest.broker.locating import BrokerSnapshot
from pytest_manifest.run.pending import PendingAttempts
from pytest_manifest.text import listed, plural


class StrandedJobs:
    """Mark jobs taken from their queue that no worker that answers has. Use it from one thread.

    The worker may be dead, and then the broker requeues the job when its visibility timeout is
    over; or it may be busy, as one whose only process runs a job answers nothing meanwhile. From
    outside the two look alike, so each message in ``live_warnings`` covers both. ``allowed``: what
    a dead worker had is requeued unasked.
    """

    def __init__(
        self, pending: PendingAttempts, live_warnings: list[str], *, allowed: bool
    ) -> None:
        self._pending = pending
        self._live_warnings = live_warnings
        self._allowed = allowed
        self._said = 0

    def update(self, first: BrokerSnapshot, second: BrokerSnapshot) -> None:
        """Compare the two snapshots."""
        found: list[str] = []
        for task_id, job in self._pending.by_task_id.items():
            taken = bool(
                first.unacked.get(task_id, frozenset()) & second.unacked.get(task_id, frozenset())
            )
            had = first.has_worker(task_id) or second.has_worker(task_id)
            job.stranded = taken and not had and not job.is_running
            job.holder = second.reserved.get(task_id, job.holder)
            if job.stranded:
                job.holder = job.holder or " or ".join(sorted(second.unresponsive)) or None
                found.append(task_id)
        # Said again where far more are stranded than before, and not at each look.
        if len(found) >= 2 * self._said and not (self._allowed and not second.unresponsive):
            self._said = len(found)
            self._live_warnings += [self._message(found, second)] if found else []

    def _message(self, task_ids: list[str], look: BrokerSnapshot) -> str:
        names = sorted(self._pending.by_task_id[one].entry.id for one in task_ids)
        jobs = f"{plural(len(names), 'job')}, {names[0]!r} first"
        since = [look.delivered_at[one] for one in task_ids if one in look.delivered_at]
        taken = f", since {_clock(min(since))}" if since else ""
        back = "when its visibility timeout is over"
        if since and look.visibility_timeout is not None:
            back += f" (from {_clock(min(since) + look.visibility_timeout)} on)"
        if not look.unresponsive:
            return (
                f"a worker that is gone holds {jobs}{taken}; the broker gives them back {back}, "
                "--manifest-repair at once"
            )
        repaired = "this run does, " if self._allowed else "--manifest-repair does, "
        return (
            f"no worker that answers has {jobs}, taken from the queue{taken.lstrip(',')}; "
            f"{listed(sorted(look.unresponsive), 3)} did not answer: one that is busy may run them "
            f"yet; of one that is gone the broker gives them back {back}, and {repaired}as soon as "
            "it is known to be gone"
        )


def _clock(moment: float) -> str:
    """Format a moment of the epoch as the local time."""
    return datetime.fromtimestamp(moment, timezone.utc).astimezone().strftime("%H:%M:%S")
