"""Track the attempts without a final receipt: until when they are waited for, and who has them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone

from pytest_manifest.broker.attempt import Attempt
from pytest_manifest.broker.locating.base import BrokerSnapshot
from pytest_manifest.ledger import Descendant, utc_now
from pytest_manifest.run.settings import WorkerLoss
from pytest_manifest.schema import Entry, Receipt
from pytest_manifest.schema.facts import HandedOn, Started
from pytest_manifest.schema.run_facts import JobFact
from pytest_manifest.text import listed, plural

TIMEOUT_GRACE = 5.0
"""Seconds to wait for an overdue job's own receipt before the run judges it."""

SPARE = 1000
"""Deadlines that are kept of completed attempts, beside twice as many as are in flight."""


@dataclass(slots=True)
class PendingAttempt:
    """Hold an attempt, or a descendant of one, without a final receipt.

    ``sent`` and ``started`` are by the monotonic clock (s).

    ``start``: its last one, whose ``pid`` is valid where host, boot and namespace are the same;
    ``loss`` is how its worker ended. ``unconfirmed``: an end that the result store alone reports,
    until more is known. ``stranded``: it was taken from its queue, and no worker that answers has
    it; ``holder``: the node that was seen to have it last. ``facts``: all that there are of it;
    None where only the ledger knows. ``between``: the end of its last execution, where the job goes
    on after it: no process runs the job then.

    ``child``: of a descendant, where it comes from; its ``entry`` has its task and the limits of
    the attempt's. ``announcers``: the tasks that announced it, by the key ``announcement``, where
    nobody has reported yet that it is sent. ``parts``: the tasks of its tree that have succeeded,
    where it was handed on to some of them, and all others have ended: one of these sends its own
    message then, or nobody does.
    """

    run: str
    entry: Entry
    number: int
    task_id: str
    sent: float
    sent_at: datetime | None = None
    started: float | None = None
    start: Started | None = None
    loss: WorkerLoss | None = None
    unconfirmed: Receipt | None = None
    stranded: bool = False
    holder: str | None = None
    facts: list[JobFact] | None = None
    between: HandedOn | None = None
    child: Descendant | None = None
    announcers: frozenset[str] = frozenset()
    announcement: str = ""
    parts: frozenset[str] | None = None

    @property
    def root(self) -> str:
        """Return the task id of the attempt that it is, or that it is a descendant of."""
        return self.task_id if self.child is None else self.child.root

    @property
    def worker(self) -> str | None:
        """Return the worker that started it last."""
        return None if self.start is None else self.start.worker

    @property
    def execution(self) -> str | None:
        return None if self.start is None else self.start.execution

    @property
    def is_running(self) -> bool:
        """Return whether a process runs it, by all reports: it started, and did not end."""
        return self.started is not None and self.between is None

    @property
    def is_elsewhere(self) -> bool:
        """Return whether messages under other task ids carry it now: no search can find it."""
        return self.was_split and self.parts is None

    @property
    def is_out_of_sight(self) -> bool:
        """Return whether it waits on a broker that no search looks at, by all that is known."""
        return self.child is not None and self.child.broker is not None and self.started is None

    @property
    def was_split(self) -> bool:
        """Return whether it was handed on to several tasks, the last of which has not begun."""
        return self.between is not None and self.between.how == "canvas"

    @property
    def senders(self) -> frozenset[str]:
        """Return the task ids of what may yet send its message."""
        parent = set[str]() if self.child is None else {self.child.parent}
        return (self.announcers or frozenset(parent)) | (self.parts or frozenset())

    @property
    def attempt(self) -> Attempt:
        return Attempt(self.run, self.entry, self.number, self.task_id)


@dataclass(frozen=True, slots=True, order=True)
class _Due:
    when: float
    task_id: str
    since: float | None = field(default=None, compare=False)
    """The start that it is about; None: about the attempt, whatever it does."""


@dataclass(frozen=True, slots=True)
class Overdue:
    """Hold a job whose time is over; ``by_start``: it is counted from a start of it."""

    job: PendingAttempt
    by_start: bool


class PendingAttempts:
    """Hold the attempts in flight by task id, oldest first."""

    def __init__(self) -> None:
        self.with_own_limit: Callable[[PendingAttempt], Entry] = lambda job: job.entry
        """Gives a job's entry with the limit that holds for it as its ``timeout``."""
        self.by_task_id: dict[str, PendingAttempt] = {}
        self.held: dict[str, PendingAttempt] = {}
        """Attempts that have ended and wait for their descendants, by task id."""
        self.queues: dict[str, set[str]] = {}
        """The queues that workers have sent some of these to, with their tasks. Also where that
        has begun since: its message may come back."""
        self._due: list[_Due] = []
        self._postponed_until = float("-inf")

    def __len__(self) -> int:
        return len(self.by_task_id)

    def track(
        self,
        attempt: Attempt,
        sent: float,
        sent_at: datetime | None = None,
        *,
        tried: float | None = None,
        facts: Sequence[JobFact] | None = None,
    ) -> None:
        """Wait for this attempt, which was sent at this moment.

        Its deadline counts from when it was first ``tried``, where that was earlier. ``facts``: all
        that there are of it, where these are known.
        """
        known = attempt.run, attempt.entry, attempt.number, attempt.task_id
        job = PendingAttempt(*known, sent, sent_at, facts=None if facts is None else list(facts))
        self.track_descendant(job, tried)

    def track_descendant(self, job: PendingAttempt, tried: float | None = None) -> None:
        """Wait for a descendant; the deadline of its attempt's entry holds for it, too."""
        self.by_task_id[job.task_id] = job
        if job.child is not None:
            self._note_queue(job, job.child.queue)
        if job.entry.deadline is not None:
            since = job.sent if tried is None else tried
            heapq.heappush(self._due, _Due(since + job.entry.deadline, job.task_id))

    def started(self, start: Started, now: float, seq: int = 0) -> None:
        """Note that a worker started it: its timeout counts from now.

        ``seq``: the start's number in the order of facts, of a job's first one.
        """
        job = self.by_task_id.get(start.job)
        if job is None:
            return
        if job.facts is not None:
            if job.started is None and seq:
                job.facts.append(replace(start, seq=seq))
            else:  # one execution in two processes is two starts: its pool has given the job again
                known = (one for one in job.facts if isinstance(one, Started))
                if all((one.execution, one.pid) != (start.execution, start.pid) for one in known):
                    job.facts = None
        is_again, job.started = job.started == now, now
        job.start, job.between, job.loss, job.parts = start, None, None, None
        if is_again:  # its time is told already
            return
        self.count_time(job, now)
        if len(self._due) > 2 * len(self.by_task_id) + SPARE:
            self._forget_past()

    def count_time(self, job: PendingAttempt, now: float, more: float | None = None) -> None:
        """Count a started job's timeout from now; or give it so many seconds ``more``."""
        timeout = self.with_own_limit(job).timeout
        when = now + (timeout + TIMEOUT_GRACE if more is None else more)
        heapq.heappush(self._due, _Due(when, job.task_id, since=job.started))

    def handed_on(self, end: HandedOn) -> None:
        """Note that an execution ended, and that the job waits for its next try or another task.

        Its timeout does not count meanwhile: that is of what runs, one try at a time.
        """
        job = self.by_task_id.get(end.job)
        if job is None:
            return
        job.facts = None
        self._note_queue(job, end.queue)
        if job.execution == end.execution:
            job.between, job.loss, job.parts = end, None, None

    def _note_queue(self, job: PendingAttempt, queue: str | None) -> None:
        if queue is not None:
            self.queues.setdefault(queue, set()).add(job.entry.task)

    def _forget_past(self) -> None:
        """Drop the deadlines of completed attempts, of a million jobs nearly all, and those of
        earlier starts."""
        self._due = [due for due in self._due if self._is_ahead(due)]
        heapq.heapify(self._due)

    def _is_ahead(self, due: _Due) -> bool:
        job = self.by_task_id.get(due.task_id)
        return job is not None and due.since in (None, job.started)

    def worker_lost(self, loss: WorkerLoss) -> list[PendingAttempt]:
        """Note the death of a worker process at what it was running, and return that."""
        jobs = self.by_task_id.values()
        lost = [j for j in jobs if j.between is None and node_of(j.worker) == loss.worker]
        for job in lost:
            job.loss = loss
        return lost

    def attempts(self) -> list[Attempt]:
        """Return the attempts that are under way, by themselves or by descendants."""
        own = (job.attempt for job in self.by_task_id.values() if job.child is None)
        return [*own, *(held.attempt for held in self.held.values())]

    def task_ids(self) -> set[str]:
        """Return the task ids of all that is awaited: jobs, and those that await descendants."""
        return self.by_task_id.keys() | self.held.keys()

    def awaits(self, task_id: str) -> bool:
        """Return whether something is awaited of this attempt: of its job, or of descendants."""
        return task_id in self.by_task_id or task_id in self.held

    def entries(self) -> list[Entry]:
        return [job.entry for job in self.by_task_id.values()]

    def unstarted(self) -> set[str]:
        """Return the task ids that have been sent and that no worker has started."""
        return {i for i, job in self.by_task_id.items() if job.started is None}

    def waiting(self) -> set[str]:
        """Return the task ids that wait for a worker: not started, or between two tries."""
        return {
            i
            for i, one in self.by_task_id.items()
            if not (one.is_running or one.is_elsewhere or one.is_out_of_sight)
        }

    def out_of_sight(self) -> set[str]:
        """Return the task ids that wait on another broker: nothing can be done about them."""
        return {i for i, job in self.by_task_id.items() if job.is_out_of_sight}

    def may_come(self, job: PendingAttempt) -> bool:
        """Return whether to wait for what another broker has.

        It has as long as it may run; later than that nothing is expected of it.
        """
        if job.child is None or not job.is_out_of_sight:
            return False
        limit = self.with_own_limit(job).timeout + job.child.delay + TIMEOUT_GRACE
        return job.sent_at is None or (utc_now() - job.sent_at).total_seconds() < limit

    def elsewhere(self) -> frozenset[str]:
        """Return the task ids that other messages carry."""
        return frozenset(i for i, job in self.by_task_id.items() if job.is_elsewhere)

    def complete(self, task_id: str) -> PendingAttempt | None:
        """Remove an attempt and return it; None where it was completed before, or is not ours."""
        return self.by_task_id.pop(task_id, None)

    def drop_all_but(self, entries: Container[str]) -> None:
        """Track only what is of these entries from here on, and forget when the rest was due."""
        for task_id in [i for i, job in self.by_task_id.items() if job.entry.id not in entries]:
            del self.by_task_id[task_id]
        self._due = [due for due in self._due if due.task_id in self.by_task_id]
        heapq.heapify(self._due)
        for task_id in [i for i, one in self.held.items() if one.entry.id not in entries]:
            del self.held[task_id]

    def overdue(self, now: float) -> dict[str, Overdue]:
        """Return what time is over for, by task id; each once, and it stays in flight."""
        found: dict[str, Overdue] = {}
        while self._due and self._due[0].when <= now:
            due = heapq.heappop(self._due)
            job = self.by_task_id.get(due.task_id)
            if due.since is not None and now < self._postponed_until:
                heapq.heappush(self._due, replace(due, when=self._postponed_until))
                continue
            if job is None:
                continue  # settled meanwhile
            if due.since is not None and (job.started != due.since or job.between is not None):
                continue  # its try is over: a retry, another worker
            found[due.task_id] = Overdue(job, by_start=due.since is not None)
        return found

    def postpone_timeouts(self, now: float) -> None:
        """Postpone timeouts: no receipt can arrive now."""
        self._postponed_until = now + TIMEOUT_GRACE

    def senders(self) -> frozenset[str]:
        """Return the task ids of what may yet send the message of a pending job."""
        pending = self.by_task_id.values()
        jobs = (job for job in pending if job.parts or (job.child and job.started is None))
        return frozenset().union(*(job.senders for job in jobs))

    def forget_facts(self, task_id: str) -> None:
        """Have a job judged by what the ledger has of it, as memory has not all of it."""
        job = self.by_task_id.get(task_id)
        if job is not None:
            job.facts = None

    def clear(self) -> None:
        self.by_task_id.clear()
        self.held.clear()
        self._due.clear()


def pending_descendant(
    one: Descendant, attempt: PendingAttempt, entries: dict[str, Entry]
) -> PendingAttempt:
    """Return what is awaited of a descendant; ``entries`` keeps what is the same for its task."""
    if one.task not in entries:
        entries[one.task] = entry_of_descendant(one.task, attempt)
    return PendingAttempt(
        attempt.run,
        entries[one.task],
        attempt.number,
        one.task_id,
        attempt.sent,
        one.spawned_at,
        child=one,
    )


def entry_of_descendant(task: str, attempt: PendingAttempt) -> Entry:
    """Return an entry for a descendant: with its own task, and the limits of its attempt's.

    The timeout is as by default: a limit of the task's own comes before it.
    """
    entry = attempt.entry
    own: set[str] = {"id", "task", "deadline"}
    return Entry.model_construct(
        own, id=entry.id, task=task, timeout=entry.timeout, deadline=entry.deadline
    )


def node_of(worker: str | None) -> str | None:
    """Return a worker's node name without its host."""
    return None if worker is None else worker.partition("@")[0]


@dataclass(eq=False)
class StrandedJobs:
    """Mark jobs taken from their queue that no worker that answers has. Use it from one thread.

    The worker may be dead, and then the broker requeues the job when its visibility timeout is
    over; or it may be busy, as one whose only process runs a job answers nothing meanwhile. From
    outside the two look alike, so each message in ``live_warnings`` covers both. ``allowed``: what
    a dead worker had is requeued unasked.
    """

    _pending: PendingAttempts
    _live_warnings: list[str]
    allowed: bool
    repairs: Callable[[frozenset[str]], bool] = lambda _: True
    """Tells whether ``--manifest-repair`` would put back some of these jobs."""
    _said: int = 0

    def update(self, first: BrokerSnapshot, second: BrokerSnapshot) -> None:
        """Compare the two snapshots."""
        found: list[str] = []
        none = frozenset[str]()
        for task_id, job in self._pending.by_task_id.items():
            taken = first.unacked.get(task_id, none) & second.unacked.get(task_id, none)
            had = first.has_worker(task_id) or second.has_worker(task_id)
            job.stranded = bool(taken) and not had and not job.is_running
            job.holder = second.reserved.get(task_id, job.holder)
            if job.stranded:
                job.holder = job.holder or " or ".join(sorted(second.unresponsive)) or None
                found.append(task_id)
        # Said again where far more are stranded than before, and not at each look.
        if len(found) >= 2 * self._said and not (self.allowed and not second.unresponsive):
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
        helps = self.repairs(frozenset(task_ids))
        if not look.unresponsive:
            back += ", --manifest-repair at once" if helps else ""
            return f"a worker that is gone holds {jobs}{taken}; the broker gives them back {back}"
        repaired = "this run does" if self.allowed else "--manifest-repair does"
        soon = f", and {repaired}, as soon as it is known to be gone" if helps else ""
        return (
            f"no worker that answers has {jobs}, taken from the queue{taken.lstrip(',')}; "
            f"{listed(sorted(look.unresponsive), 3)} did not answer: one that is busy may run them "
            f"yet; of one that is gone the broker gives them back {back}{soon}"
        )


def _clock(moment: float) -> str:
    """Format a moment of the epoch as the local time."""
    return datetime.fromtimestamp(moment, timezone.utc).astimezone().strftime("%H:%M:%S")
