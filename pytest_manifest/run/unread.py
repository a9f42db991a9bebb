"""Jobs of which something stands in the result store that cannot be read on this side.

They are not lost: they came to some end, or to a state of their own, and what that was is there.
So nothing that is said for want of a result, or of time, may be said of them.
"""

from __future__ import annotations

from pytest_manifest.results.gatherer import ReceiptCollector
from pytest_manifest.run.pending import PendingAttempt
from pytest_manifest.schema import VerdictStatus

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
