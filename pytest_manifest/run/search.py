"""Find jobs that no worker reports, and requeue what dead workers had taken.

Two snapshots of the places where a job can be are compared; one alone would miss what moves from
one place to the next. Which workers are gone is known from what each has reported, and when.
"""

from __future__ import annotations

import heapq
import json
import math
import time
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal, TypeAlias

from loguru import logger

from pytest_manifest.broker.locating import Locator
from pytest_manifest.broker.locating.base import (
    BrokerSnapshot,
    JobLocations,
    Location,
    StartedOn,
    compare,
)
from pytest_manifest.broker.workers import Worker
from pytest_manifest.errors import StackError
from pytest_manifest.ledger import utc_now
from pytest_manifest.ledger.run_info import RunMetadata
from pytest_manifest.processes import (
    ProcessIdentity,
    has_ended,
    means_the_same_here,
    parent_of,
    parse_identity,
)
from pytest_manifest.run.inflight import PendingAttempt, PendingAttempts, StrandedJobs
from pytest_manifest.schema.facts import Started

HEARTBEAT: Final = 5.0
"""Seconds from one look at the workers' processes to the next."""
LEFT_FOR: Final = 15.0
"""Seconds without a connection after which a worker elsewhere has left: longer than Celery takes
to connect anew to a broker that can be reached."""
HEARD_WITHIN: Final = 60.0
"""Seconds before it left within which it was heard of. A broker keeps the connection of one that is
cut off from it for longer, some minutes."""
DROPS_ITS_JOBS: Final = frozenset({"prefork", "solo"})
"""Pools that begin nothing which they had taken before they lost their connection."""
WORKERS: Final = "worker_processes"
"""The ledger's key for the workers that a run has asked what they are."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """Facts that a worker has given of itself: its main process and its pool."""

    process: ProcessIdentity | None
    pool: str


def facts_of(workers: Iterable[Worker]) -> dict[str, WorkerFacts]:
    """Map node -> facts, of those that answered in full."""
    told = (one for one in workers if not {"registered", "stats"} & one.unsaid)
    return {one.name: WorkerFacts(one.process, one.pool) for one in told}


class Departures:
    """Follow the workers of a run, and see which are gone. Use it from one thread.

    ``ask`` returns the facts of the workers that answer now; it raises StackError.
    """

    def __init__(self, ask: Callable[[], Mapping[str, WorkerFacts]] = dict) -> None:
        self._ask = ask
        self._facts: dict[str, WorkerFacts] = {}
        self._asked: set[str] = set()
        self._ended: set[str] = set()
        self._heard: dict[str, float] = {}
        self._absent_since: dict[str, float] = {}
        self._listeners: int | None = None
        self._next_beat = 0.0
        self._has_replaced = False
        self.has_news = False
        """Whether something is known that has not been recorded yet."""

    def recall(self, info: RunMetadata) -> None:
        """Take over what earlier sessions of the run knew of its workers."""
        kept = json.loads(info.get_meta(WORKERS) or "{}")
        for node, (process, pool) in kept.items():
            self._facts.setdefault(node, WorkerFacts(parse_identity(process), pool))

    def keep(self, info: RunMetadata) -> None:
        """Record what is known of the workers for later sessions."""
        facts = self._facts.items()
        rows = {name: (str(one.process or ""), one.pool) for name, one in facts}
        info.set_meta(WORKERS, json.dumps(rows))
        self.has_news = False

    def meet(self, facts: Mapping[str, WorkerFacts], now: float) -> None:
        """Note what workers say of themselves."""
        both = self._facts.keys() & facts.keys()
        if any(self._facts[node].process != facts[node].process for node in both):
            self._has_replaced = True
        self._facts.update(facts)
        self.has_news = self.has_news or bool(facts)
        self._asked |= facts.keys()
        self._ended -= facts.keys()
        self.hear(facts, now)

    def hear(self, nodes: Iterable[str], now: float) -> None:
        """Note that these workers have answered, or reported something."""
        for node in nodes:
            self._heard[node] = now
            self._absent_since.pop(node, None)

    def hear_starts(self, starts: Iterable[Started], now: float) -> None:
        """Note the workers that have just begun jobs; what was reported long ago says nothing."""
        earliest = utc_now() - timedelta(seconds=HEARD_WITHIN)
        fresh = [one for one in starts if one.started_at is not None and one.started_at > earliest]
        self.hear({one.worker for one in fresh if one.worker is not None}, now)

    def is_beat_due(self, now: float) -> bool:
        """Return whether the processes are to be looked at again, and count this as done."""
        if now < self._next_beat:
            return False
        self._next_beat = now + HEARTBEAT
        return True

    def has_lost_some(self, listeners: int | None) -> bool:
        """Return whether a worker has ended since the last look, as far as that can be seen.

        ``listeners``: connections on which workers listen, as the broker counts them.
        """
        before, self._listeners = self._listeners, listeners
        ended = {node for node, one in self._facts.items() if _is_dead(one.process)}
        fresh, self._ended = ended - self._ended, ended
        return bool(fresh) or (None not in (before, listeners) and (listeners or 0) < (before or 0))

    def gone(self, first: BrokerSnapshot, second: BrokerSnapshot, now: float) -> frozenset[str]:
        """Return the silent workers that are gone by all that two snapshots show."""
        self._learn(second.answered, now)
        self.hear(second.answered, now)
        for node in second.unresponsive:
            if node not in (first.absent & second.absent):
                self._absent_since.pop(node, None)
                if node in second.maybe_alive:  # silent, and connected: it may be cut off
                    self._heard.pop(node, None)
            elif node not in self._absent_since:
                self._absent_since[node] = now
        return frozenset(node for node in second.unresponsive if self._is_gone(node, now))

    def _is_gone(self, node: str, now: float) -> bool:
        facts = self._facts.get(node)
        if facts is None:
            return False
        process = facts.process
        if process is not None and process.is_here:
            if not process.has_ended:
                return False
            if process.has_ended_with_its_group:
                return True
        heard, since = self._heard.get(node), self._absent_since.get(node)
        if heard is None or since is None or facts.pool not in DROPS_ITS_JOBS:
            return False
        return since - heard <= HEARD_WITHIN and now - since >= LEFT_FOR

    def are_all_there(self, answered: frozenset[str]) -> bool:
        """Return whether each worker that the run has known is one of these, which answer now."""
        return not self._has_replaced and self._facts.keys() | self._heard.keys() <= answered

    def outlived(self, running: Mapping[str, Started]) -> frozenset[str]:
        """Return which of these jobs, whose processes live, are not of the workers that have the
        names of theirs now: who ends when its jobs have is often replaced before that."""
        try:
            present = self._ask() if running else {}
        except StackError:
            return frozenset()
        found = set[str]()
        for task_id, start in running.items():
            facts = present.get(start.worker or "")
            process = None if facts is None else facts.process
            if process is not None and process.is_here and start.pid is not None:
                is_its_own = process.pid in (start.pid, parent_of(start.pid))
                found |= set() if is_its_own else {task_id}
        return frozenset(found)

    def still_leaving(self, now: float) -> float | None:
        """Return the seconds until the next worker has been away for long enough, None: none is."""
        left = [
            since + LEFT_FOR - now
            for node, since in self._absent_since.items()
            if now - since < LEFT_FOR and node in self._heard
        ]
        return min(left, default=None)

    def _learn(self, answered: frozenset[str], now: float) -> None:
        """Ask what workers are that joined later, or that are started again."""
        for node in answered:
            facts = self._facts.get(node)
            if facts is not None and _is_dead(facts.process):  # another process has its name now
                self._has_replaced = True
                del self._facts[node]
                self._asked.discard(node)
        new = answered - self._asked
        if not new:
            return
        try:
            self.meet(self._ask(), now)
        except StackError as error:  # there is a next time
            logger.warning("the workers could not be asked what they are: {}", error)
            return
        self._asked |= new  # also those that do not say


def _is_dead(process: ProcessIdentity | None) -> bool:
    return process is not None and process.is_here and process.has_ended


SNAPSHOT_GAP = 1.0
"""Seconds between the two snapshots: what moves from one place to the next arrives in them. What
was sent less than that before the first one may move twice: to the broker, and then to a worker."""
AFTER_LOSS = (0.5, 2.0, 5.0, 10.0, 20.0)
"""Seconds after a worker's death at which to search: its successor may be up and answer by then."""
QUIET = 5.0
"""Seconds without any report after which the jobs are searched for."""
LONGEST_QUIET = 30.0
SILENCE = 60.0
"""Seconds that a node may be silent beyond the longest timeout before it counts as gone: one whose
only process runs a job answers nothing meanwhile, one that was renamed will never answer."""
RETRY_AFTER = 2.0
"""Seconds until the next snapshot after one that failed."""


@dataclass(eq=False)
class JobSearch:
    """Take two snapshots of the places where a job can be, with a gap. Use it from one thread."""

    _locator: Locator
    _pending: PendingAttempts
    _stranded: StrandedJobs | None = None
    departures: Departures = field(default_factory=Departures)
    retried: Callable[[Mapping[str, str]], Collection[str]] = lambda _: ()
    """Returns which of these, task id -> task, have asked for a retry last, by the result store;
    raises StackError."""

    def __post_init__(self) -> None:
        self._first: tuple[float, BrokerSnapshot, frozenset[str]] | None = None
        self._due: list[float] = []
        self._quiet = QUIET
        self._news_at = time.monotonic()
        self._silent_since: dict[str, float] = {}
        self._dead: set[tuple[str, str | None]] = set()
        """Task ids and executions whose process has ended, and that a search is due for."""
        self.seen: frozenset[str] = frozenset()
        """Task ids that one of the last two snapshots at least has shown."""
        self.waits_elsewhere: frozenset[str] = frozenset()
        """Task ids of what waits for its next try in a queue that the run does not know."""
        self.looks: Looks | None = None
        """The last two snapshots, without the nodes that are gone."""

    def reset_quiet(self, now: float) -> None:
        """Note that a report arrived: jobs are on their way."""
        self._news_at, self._quiet = now, QUIET

    def schedule(self, now: float, *after: float) -> None:
        """Schedule snapshots so many seconds from now, whatever is reported meanwhile."""
        for seconds in after or (0.0,):
            heapq.heappush(self._due, now + seconds)

    def beat(self, now: float) -> None:
        """Look at the processes of workers and jobs, every few seconds; search if one has ended."""
        if not self._pending or not self.departures.is_beat_due(now):
            return
        lost = self.departures.has_lost_some(self._count_listeners())
        dead = {
            (job.task_id, job.execution)
            for job in self._pending.by_task_id.values()
            if job.is_running and is_alive(job) is False
        }
        if lost or not dead <= self._dead:
            self.schedule(now, *AFTER_LOSS[:3])
        self._dead = dead

    def _count_listeners(self) -> int | None:
        try:
            return self._locator.listeners()
        except StackError as error:  # the broker is away: there is a next time
            logger.debug("the workers' connections could not be counted: {}", error)
            return None

    def tick(self, now: float) -> JobLocations | None:
        """Take a snapshot where one is due; after a second one, return what the two show."""
        if not self._pending:
            return None
        if self._first is not None:
            return self._take_second() if now >= self._first[0] + SNAPSHOT_GAP else None
        if self._is_due(now):
            self._take_first()
        return None

    def search_now(self) -> JobLocations:
        """Take both snapshots, waiting for the gap. Raises StackError where the broker is away."""
        sent = max((job.sent for job in self._pending.by_task_id.values()), default=-math.inf)
        time.sleep(max(0.0, sent + SNAPSHOT_GAP - time.monotonic()))
        ids, wanted = frozenset(self._pending.by_task_id), self._wanted()
        first = self._locator.snapshot(wanted)
        time.sleep(SNAPSHOT_GAP)
        return self._compare(first, self._locator.snapshot(wanted), ids)

    def _wanted(self) -> frozenset[str]:
        """Return the task ids to look for: of what is pending, and what may yet start more."""
        return self._pending.senders() | self._pending.by_task_id.keys()

    def waiting(self, task_ids: Collection[str]) -> frozenset[str]:
        """Return which of these wait for a worker now: in a queue, or where one has it reserved."""
        look = (self._snapshot(frozenset(task_ids)) if task_ids else None) or BrokerSnapshot()
        return frozenset((look.queued.keys() | look.reserved.keys()) - look.running.keys())

    def is_deserted(self) -> bool:
        """Return whether all pending jobs wait in their queues, and no worker at all answers.

        Where the broker does not show what waits, those count that no worker has started.
        """
        pending = self._pending.by_task_id
        if any(job.started is not None for job in pending.values()):
            return False
        look = self._snapshot(frozenset(pending))
        if look is None or look.answered or look.running or look.reserved:
            return False
        return bool(look.blind_spot) or look.queued.keys() == pending.keys()

    def _is_due(self, now: float) -> bool:
        if self._due and self._due[0] <= now:
            while self._due and self._due[0] <= now:
                heapq.heappop(self._due)
            return True
        if now - self._news_at < self._quiet:
            return False
        self._news_at, self._quiet = now, min(2 * self._quiet, LONGEST_QUIET)
        return True

    def _take_first(self) -> None:
        latest = time.monotonic() - SNAPSHOT_GAP
        pending = self._pending.by_task_id.items()
        ids = frozenset(task_id for task_id, job in pending if job.sent <= latest)
        look = self._snapshot(self._wanted())
        if look is not None:
            self._first = (time.monotonic(), look, ids)

    def _take_second(self) -> JobLocations | None:
        assert self._first is not None
        _, first, seen = self._first
        self._first = None
        ids = frozenset(self._pending.by_task_id) & seen
        look = self._snapshot(self._wanted())
        return None if look is None else self._compare(first, look, ids)

    def _compare(
        self, first: BrokerSnapshot, second: BrokerSnapshot, ids: frozenset[str]
    ) -> JobLocations:
        self.seen = frozenset(i for i in ids if first.contains(i) or second.contains(i))
        if self._stranded is not None:
            self._stranded.update(first, second)
        now = time.monotonic()
        left = self.departures.gone(first, second, now)
        if (seconds := self.departures.still_leaving(now)) is not None:
            self.schedule(now, seconds)
        first, second = (
            self._with_starters(first, ids, left),
            self._with_starters(second, ids, left),
        )
        gone = self._gone(second) | left
        first = replace(first, unresponsive=first.unresponsive - gone)
        second = replace(second, unresponsive=second.unresponsive - gone)
        self.looks = first, second
        elsewhere = self._pending.elsewhere() & ids
        located = compare(first, second, ids - elsewhere, started=self._starts(ids, left))
        # Other messages carry these, under unknown ids; or another task may send them yet.
        to_come = self._to_come(located.missing, first, second)
        to_come |= self._may_wait_elsewhere(located.missing, second.answered)
        lost = located.missing | frozenset(located.unacked_by_dead)
        outlived = self.departures.outlived(self._living(lost))
        held = {i: tags for i, tags in located.unacked_by_dead.items() if i not in outlived}
        located = replace(
            located,
            missing=located.missing - to_come - outlived,
            unacked_by_dead=held,
            unknown=located.unknown | elsewhere | to_come | outlived,
        )
        if first.answered and second.answered:
            return located
        # Where no worker answers at all, it is unknown what they hold.
        silent = located.missing | frozenset(located.unacked_by_dead)
        return replace(
            located, missing=frozenset(), unacked_by_dead={}, unknown=located.unknown | silent
        )

    def _living(self, task_ids: Iterable[str]) -> dict[str, Started]:
        """Map those of these whose process lives, as far as that is known -> their start."""
        jobs = (self._pending.by_task_id[one] for one in task_ids)
        return {
            job.task_id: job.start
            for job in jobs
            if job.start is not None and job.is_running and is_alive(job)
        }

    def _to_come(
        self, missing: Iterable[str], first: BrokerSnapshot, second: BrokerSnapshot
    ) -> frozenset[str]:
        """Return those of what is missing that a task may be about to send; see ``senders``.

        And those that were sent to another broker not long ago.
        """
        jobs = (self._pending.by_task_id[task_id] for task_id in missing)
        return frozenset(
            job.task_id
            for job in jobs
            if self._pending.may_come(job)
            or any(first.contains(one) or second.contains(one) for one in job.senders)
        )

    def _may_wait_elsewhere(
        self, missing: frozenset[str], answered: frozenset[str]
    ) -> frozenset[str]:
        """Return those of what is missing that may wait for their next try in an unknown queue, and
        note those that do.

        Where a worker reports starts, it tells which queue that is; of a stock one the store alone
        says that a retry was asked for. No worker has gone, which might have had that try.
        """
        self.waits_elsewhere = frozenset()
        jobs = self._pending.by_task_id
        tasks = {one: jobs[one].entry.task for one in missing if jobs[one].start is None}
        if not (tasks and self.departures.are_all_there(answered)):
            return frozenset()
        try:
            self.waits_elsewhere = frozenset(self.retried(tasks))
        except StackError as error:  # the store is away: there is a next time
            logger.warning("the result store could not be asked for retries: {}", error)
            return frozenset(tasks)
        return self.waits_elsewhere

    def _with_starters(
        self, look: BrokerSnapshot, ids: frozenset[str], left: frozenset[str]
    ) -> BrokerSnapshot:
        """Add to a snapshot every node that started one of these jobs and is not known to be gone.

        A session that found others at its start would ignore its silence.
        """
        began = {
            start.worker
            for start in self._starts(ids, left).values()
            if start.alive is not False and start.worker is not None
        }
        return replace(look, unresponsive=look.unresponsive | (began - look.answered - left))

    def _snapshot(self, ids: frozenset[str]) -> BrokerSnapshot | None:
        try:
            return self._locator.snapshot(ids)
        except StackError as error:  # the broker is away: there is a next time
            logger.warning("the jobs could not be looked for: {}", error)
            self.schedule(time.monotonic(), RETRY_AFTER)
            return None

    def _gone(self, look: BrokerSnapshot) -> frozenset[str]:
        """Return the nodes that have been silent for longer than any job would keep them."""
        now = time.monotonic()
        since = {node: self._silent_since.get(node, now) for node in look.unresponsive}
        self._silent_since = since
        pending = self._pending.by_task_id.values()
        longest = max((self._pending.with_own_limit(job).timeout for job in pending), default=0.0)
        return frozenset(node for node, t in since.items() if now - t > longest + SILENCE)

    def _starts(self, ids: frozenset[str], left: frozenset[str]) -> dict[str, StartedOn]:
        pending = (self._pending.by_task_id[i] for i in ids)
        # Between two tries any worker may hold the message: which one ran the last says nothing.
        return {
            one.task_id: StartedOn(one.worker, is_alive(one), one.worker in left)
            for one in pending
            if one.is_running
        }


def is_alive(job: PendingAttempt) -> bool | None:
    """Return whether the process that started the job still lives; None where that is not known
    from here."""
    one = job.start
    if one is None or one.pid is None or not means_the_same_here(one.host, one.boot, one.namespace):
        return None if job.loss is None else False
    return not has_ended(one.pid)


Looks: TypeAlias = tuple[BrokerSnapshot, BrokerSnapshot]
Handling = Literal["put_back", "taken_out", "left"]
"""What is done with a dead worker's message, see ``facts.Moved``."""


def locations_of(
    located: JobLocations,
    pending: PendingAttempts,
    taken_out: Container[str],
    *,
    requeues: bool,
    not_requeued: Container[str] = (),
) -> dict[str, Location]:
    """Return where each job was found; ``requeues``: orphans were requeued, or ``taken_out`` if
    started.

    ``not_requeued`` are those that may have started unreported.
    """
    found: dict[str, Location] = dict.fromkeys(located.unknown, "unknown")
    found.update(dict.fromkeys(located.missing, "missing"))
    found.update(dict.fromkeys(located.queued, "queued"))
    found.update(dict.fromkeys(located.with_worker, "with_worker"))
    for task_id in located.unacked_by_dead:
        job = pending.by_task_id.get(task_id)
        if not requeues:
            found[task_id] = "unacked_by_dead"
        elif task_id in taken_out:
            found[task_id] = "missing"
        else:
            begun = task_id in not_requeued or (job is not None and job.is_running)
            found[task_id] = "unknown" if begun else "queued"
    return found
