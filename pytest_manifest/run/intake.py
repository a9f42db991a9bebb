"""Take in what workers and the result store report: each report as a fact, once.

Every final receipt passes here on its way to the ledger. Ends that the result store alone reports,
or has in a form that cannot be read here, are held back: Celery 5.7 has every worker that hears of
a revocation store it, also for a job that waits in a queue, or that another worker runs. And a task
can store an end of its own in the middle of its work (``update_state``); our worker, which reported
the start, would report the real end. So the job is searched for instead: only where it is then
missing has it come to that end.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence, Set

from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.facts import end_of
from pytest_manifest.run.casebook import Casebook
from pytest_manifest.run.connections import EngineContext, WorkerDeaths
from pytest_manifest.run.fact_log import FactLog
from pytest_manifest.run.inflight import PendingAttempt, PendingAttempts
from pytest_manifest.run.search import JobSearch
from pytest_manifest.schema import Receipt
from pytest_manifest.schema.facts import HandedOn, Started
from pytest_manifest.schema.statuses import OF_ITS_PROCESS
from pytest_manifest.schema.stream_records import HANDED_ON_AFTER_DEATH
from pytest_manifest.verdict.belief import is_revocation_notice

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
        self, finals: Iterable[FinalReceipt], starts: Sequence[Started] = ()
    ) -> list[FinalReceipt]:
        """Return the receipts that count; search soon for a job with a new unconfirmed end.

        Such an end is found in the store again at each poll.
        """
        receipts, fresh = [], False
        started = {start.job for start in starts}
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


class Intake:
    """Record reports as facts. For one thread, within its transactions."""

    def __init__(
        self,
        context: EngineContext,
        cases: Casebook,
        deaths: WorkerDeaths,
        search: JobSearch | None,
    ) -> None:
        self._context = context
        self._ledger = context.ledger
        self._pending = context.pending
        self._facts = context.facts
        self._cases = cases
        self._deaths = deaths
        self._search = search

    def add(
        self,
        starts: Sequence[Started],
        handed_on: Sequence[HandedOn],
        finals: Sequence[FinalReceipt],
        now: float,
    ) -> dict[str, None]:
        """Record what workers report of jobs; return those to be judged by it."""
        touched = self._add_starts(starts, now)
        touched |= self._add_handed_on(handed_on)
        return touched | self._add_ends(self._without_earlier(finals))

    def _add_starts(self, starts: Sequence[Started], now: float) -> dict[str, None]:
        """Record starts; return the jobs that had started before, or ended."""
        self._context.departures.hear_starts(starts, now)
        first: dict[str, Started] = {}
        repeated: dict[str, list[Started]] = {}
        for start in starts:
            self._deaths.has_started(start.worker)
            name = start.job
            job = self._pending.by_task_id.get(name)
            if job is None or job.started is not None or name in first:
                repeated.setdefault(name, []).append(start)
            else:
                first[name] = start
        seq = self._ledger.events.add(first.values())
        for start in starts:
            is_first = first.get(start.job) is start
            self._pending.started(start, now, seq if is_first else 0)
        for task_id, again in repeated.items():
            add_repeated_starts(self._ledger, self._facts, task_id, again)
        if starts:
            self._cases.note_starts()
        return dict.fromkeys(repeated)

    def _add_handed_on(self, ends: Sequence[HandedOn]) -> dict[str, None]:
        """Record ends of executions whose jobs go on; return those that were deaths."""
        self._ledger.events.add(ends)
        for end in ends:
            self._pending.handed_on(end)
            self._context.check_retry(end)
        return dict.fromkeys(end.job for end in ends if end.how == HANDED_ON_AFTER_DEATH)

    def _add_ends(self, finals: Sequence[FinalReceipt]) -> dict[str, None]:
        """Record ends; return their jobs.

        Where the start of one is not known, the store is looked at: has it lost some?
        """
        first, now = self._ledger.facts.last_seq() + 1, utc_now()
        ends = [
            end_of(seq, now, task_id, receipt, execution)
            for seq, (task_id, execution, receipt) in enumerate(finals, first)
        ]
        self._ledger.events.add(ends)
        unknown: dict[str, set[str]] = {}
        between: dict[str, list[tuple[str | None, Receipt]]] = {}
        for end, (task_id, execution, receipt) in zip(ends, finals, strict=True):
            job = self._pending.by_task_id.get(task_id)
            facts = None if job is None else job.facts
            if job is not None and job.between is not None:
                between.setdefault(task_id, []).append((execution, receipt))
            if facts is not None:
                facts.append(end)
            if execution is None or receipt.state not in OF_ITS_PROCESS:
                continue
            if job is None or job.execution != execution:
                unknown.setdefault(task_id, set()).add(execution)
        for task_id, reported in between.items():
            self._pending.goes_on(task_id, reported)
        if self._lacks_starts(unknown):
            self._context.look_for_losses()
        return dict.fromkeys(task_id for task_id, _, _ in finals)

    def _lacks_starts(self, executions: Mapping[str, Set[str]]) -> bool:
        """Return whether the start of one of these executions of jobs is not known."""
        if not executions:
            return False
        starts = self._ledger.events.each(Started, list(executions))
        return any(
            not some <= {one.execution for one in starts.get(task_id, ())}
            for task_id, some in executions.items()
        )

    def _without_earlier(self, finals: Sequence[FinalReceipt]) -> list[FinalReceipt]:
        """Return these without what is stored of an execution after which the job goes on."""
        earlier = [final for final in finals if self._pending.is_earlier(*final)]
        for one in earlier:
            self._facts.reported(*one)
        return [final for final in finals if final not in earlier] if earlier else list(finals)

    def note_unsigned(self, ends: Iterable[tuple[str, str, Receipt]], now: float) -> None:
        """Keep that ends were reported which no worker has signed, and search for their jobs.

        A job goes on being awaited: its true end may come yet.
        """
        first = False
        for task_id, fault, receipt in ends:
            self._facts.reported(task_id, None, receipt, fault)
            if task_id in self._pending.by_task_id:
                first = self._facts.is_new("unsigned", task_id) or first
        if first and self._search is not None:
            self._search.schedule(now)


def add_repeated_starts(
    ledger: Ledger, facts: FactLog, task_id: str, starts: Iterable[Started]
) -> None:
    """Record starts of a job that may have some already.

    Two records of one start must be the same, and have to be of one worker. From two of its
    processes they are two starts: Celery's pool gives a job to another process when the first one
    has died before its worker has heard that it had begun.
    """
    known = ledger.events.starts(task_id)
    number = Counter(one.execution for one in known)
    identities = {_identity(one) for one in known}
    pids = defaultdict[tuple[object, ...], set[int | None]](set)
    for one in known:
        pids[_place(one)].add(one.pid)
    for start in starts:
        of_place = pids[_place(start)]
        # Those of its execution are all of its worker where there are as many as have a pid there.
        if number[start.execution] == len(of_place) and start.pid not in of_place:
            ledger.events.add([start])
            number[start.execution] += 1
            of_place.add(start.pid)
            identities.add(_identity(start))
        elif _identity(start) not in identities:
            facts.clashing(start)


def _place(start: Started) -> tuple[object, ...]:
    return start.execution, start.worker, start.host


def _identity(start: Started) -> tuple[object, ...]:
    return start.execution, start.started_at, start.retries, start.worker, start.host, start.pid
