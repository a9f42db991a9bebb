"""Hold each status that a verdict may have at the end against what truly happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from pytest_manifest.ledger import (
    AttemptRow,
    EntryVerdict,
    Ledger,
)
from pytest_manifest.schema import Entry, VerdictStatus
from pytest_manifest.schema.facts import SendResult
from pytest_manifest.schema.run_facts import names_in
from pytest_manifest.verdict.reasons import reason_of
from tests.simulation.program import UNKNOWN_TASK
from tests.simulation.world import CLOCK_SET, SimulatedWorld
from tests.unit.run_world import RUNTIME, Execution, result_of

Complaint = tuple[str, str]
"""A promise, and a phrase that says how it is broken."""


class End:
    """An entry's end: what is said of it, and what happened."""

    def __init__(
        self,
        world: SimulatedWorld,
        entry: Entry,
        rows: Sequence[AttemptRow],
        settled: EntryVerdict,
        ledger: Ledger,
    ) -> None:
        self.world = world
        self.entry = entry
        self.rows = rows
        self.settled = settled
        self.ledger = ledger
        self.task_id = rows[-1].task_id
        self.runs: Sequence[Execution] = world.of(self.task_id)

    @property
    def code(self) -> str:
        """Return the code of what is known of the job, also where a resumed run has left it."""
        return reason_of(self.settled.verdict).cause.code

    @property
    def is_meddled(self) -> bool:
        """Tell whether the world, not pytest, has doubled its message, given it back or lost it."""
        return self.task_id in self.world.meddled

    def ended(self, how: str) -> bool:
        return any(run.how == how for run in self.runs)

    @property
    def most_runs(self) -> int:
        """Count the executions of one try."""
        return max(Counter(run.message.retries for run in self.runs).values(), default=0)


def complaint(
    world: SimulatedWorld,
    entry: Entry,
    rows: Sequence[AttemptRow],
    settled: EntryVerdict,
    ledger: Ledger,
) -> Complaint | None:
    """Say what is wrong with a verdict at the end; None where it is true."""
    end = End(world, entry, rows, settled, ledger)
    check = _CHECKS.get(settled.verdict.verdict)
    if check is None:
        return "S6", "that is no end"
    return check(end)


def _passed(end: End) -> Complaint | None:
    if not end.ended("succeeded"):
        return "S4", "it did not succeed"
    receipt = end.settled.receipt
    if receipt is None or receipt.task_id != end.task_id:
        return "S4", "its receipt is another's, or none"
    # What Celery stores has no digest: who changes it there is believed.
    is_changed_in_store = receipt.source == "backend" and end.task_id in end.world.forged
    if receipt.result != result_of(end.entry) and not is_changed_in_store:
        return "S4", "its result is not what its task had returned"
    return None


def _failed(end: End) -> Complaint | None:
    return None if end.ended("failed") else ("S4", "it did not fail")


def _lost(end: End) -> Complaint | None:
    begun = [run for run in end.runs if run.how != "retried"]
    if begun and end.code not in ("lost_in_flight", "lost_between"):
        return "S3", "it had begun, and that is not said"
    if end.ended("succeeded") and end.task_id not in end.world.dropped:
        return "S3", "its receipt was there"
    return None


def _crashed(end: End) -> Complaint | None:
    # Whoever takes a message that a retry has sent, and dies, seems to die while running it; and so
    # does who ran a job whose receipt somebody took away.
    died = [run for run in end.runs if run.pid in end.world.dead]
    gone = end.task_id in end.world.dropped
    if any(gone or run.how == "died" for run in died) or end.ended("retried"):
        return None
    return "S3", "no process of it died"


def _duplicated(end: End) -> Complaint | None:
    # Where the store may have lost starts, an end of a made-up execution is believed to be another.
    if end.most_runs < 2:
        return (
            None if end.task_id in end.world.forged and end.world.flushed else ("S4", "it ran once")
        )
    return None if end.is_meddled else ("S1", "it was pytest that had it run twice")


def _forged(end: End) -> Complaint | None:
    true = end.world.clock.turned_forth or end.task_id in end.world.forged
    return None if true else ("S4", "nobody had lied")


def _skipped(end: End) -> Complaint | None:
    return ("S6", "it ran") if end.runs else None


def _revoked(end: End) -> Complaint | None:
    ran = end.ended("succeeded") and not end.is_meddled
    return ("S4", "it succeeded") if ran and end.task_id not in end.world.dropped else None


def _unknown(end: End) -> Complaint | None:
    info, known = end.ledger.info, end.ledger.jobs.run_facts()
    strangers = any(one.what in ("stock", "unserved", "nobody", "silent") for one in known.nodes)
    # Workers of others from which no start had been seen by then need not tell of any.
    seen = known.first_start is not None and known.first_start < end.settled.seq
    silent = not (info.read().is_private or seen)
    silent = silent or end.code == "start_unreported"  # which was so at that time
    untold = end.code in ("process_gone_unconfirmed", "process_ended_unconfirmed")
    if end.world.flushed or strangers or silent or untold or end.world.reached[CLOCK_SET]:
        return None
    return "L1", f"it was there to be known what became of it ({end.code})"


def _timed_out(end: End) -> Complaint | None:
    now = end.world.clock.now
    limit = min(end.entry.timeout, end.world.least_limit)
    slow = any(max(now - run.began, RUNTIME) >= limit for run in end.runs)
    has_deadline = end.entry.deadline is not None or end.world.has_deadline
    if slow or has_deadline or end.world.reached[CLOCK_SET]:
        return None
    return "L1", "there was time"


def _unknown_task(end: End) -> Complaint | None:
    return None if end.entry.task == UNKNOWN_TASK else ("S4", "every worker knows its task")


def _expired(end: End) -> Complaint | None:
    if end.entry.expires is None:
        return "S4", "it does not expire"
    ran = any(run.how != "retried" for run in end.runs)  # of a retry its message may expire, too
    return ("S4", "it ran") if ran and not end.is_meddled else None


def _quarantined(end: End) -> Complaint | None:
    starts = sum(len(end.world.of(row.task_id)) for row in end.rows)
    return None if starts >= 2 else ("S4", "it killed no two processes")


def _rejected(end: End) -> Complaint | None:
    """What a broker refuses for a while is sent again, unless an operator has cancelled it.

    Where it may have had the message before, and the store lost what would tell, or a stack of
    others had told of no start as the last session began, it is left.
    """
    sent = [one.own.each(SendResult) for one in end.ledger.jobs.of_entry(end.entry.id)]
    run = end.ledger.jobs.run_facts()
    began = max(one.seq for one in run.segments)
    has_told = run.first_start is not None and run.first_start < began
    is_untold = end.world.flushed or not (run.is_private or has_told)
    if is_untold and any(one.outcome == "uncertain" for one in sent[-1]):
        return ("S4", "it ran") if end.runs else None
    dropped = [one for one in run.steered if one.action == "cancel"]
    if not any(end.entry.id in names_in(one.data) for one in dropped):
        return "S6", "that is no end"
    return ("S4", "it ran") if end.runs else None


_CHECKS: Mapping[VerdictStatus, Callable[[End], Complaint | None]] = {
    "passed": _passed,
    "failed": _failed,
    "lost": _lost,
    "crashed": _crashed,
    "duplicated": _duplicated,
    "forged": _forged,
    "skipped": _skipped,
    "revoked": _revoked,
    "withdrawn": _revoked,
    "cancelled": _revoked,
    "unknown": _unknown,
    "timed_out": _timed_out,
    "unknown_task": _unknown_task,
    "expired": _expired,
    "quarantined": _quarantined,
    "rejected": _rejected,
}
