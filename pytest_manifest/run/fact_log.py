"""Collect the facts that a session sees or makes, and write them with what follows from them.

They wait in memory for the next transaction of the run's thread, whose first rows they are: so a
verdict comes after all that it went by, and a look costs no commit. What nothing has followed from
when a session is killed is gone with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, TypedDict

from loguru import logger
from pydantic import StrictFloat, TypeAdapter

from pytest_manifest.broker.locating.base import JobLocations
from pytest_manifest.broker.workers import with_effective_timeout
from pytest_manifest.ledger import Ledger, utc_now
from pytest_manifest.ledger.facts import Owned, end_of
from pytest_manifest.processes import boot_id
from pytest_manifest.run.inflight import Overdue, PendingAttempt
from pytest_manifest.run.search import Looks, is_alive
from pytest_manifest.schema import Entry, Receipt, facts, run_facts
from pytest_manifest.schema.run_facts import TaskFact
from pytest_manifest.schema.wire import code_digest
from pytest_manifest.verdict import problems
from pytest_manifest.verdict.inference import AT_THE_END
from pytest_manifest.verdict.judge import WITHHELD
from pytest_manifest.verdict.reasons import Problem

Ending: TypeAlias = Literal["finished", "stopped", "detached"]
Stage: TypeAlias = Literal["asked", "heard", "withdrawn"]
StoreFinding: TypeAlias = Literal["marked", "intact", "emptied", "unreachable"]


class Stamp(TypedDict):
    """The fields that every fact has; its ``seq`` is given as it is written."""

    seq: int
    at: datetime
    job: str


def stamp(job: str = "") -> Stamp:
    """Return the fields of a fact of a job, or of the run, of this moment."""
    return Stamp(seq=0, at=utc_now(), job=job)


_OVER: Final = {code: why for why, (_, code) in AT_THE_END.items()}
_WITHHELD: Final = {code: name for name, code in WITHHELD.items()}
_OF_ANY: Final = {*vars(Problem()), "unread", "unsent", "holder", "limit", "error", "names"}
"""Fields of reasons that are no figures of the fact's own."""


def run_over(why: problems.RunOver) -> run_facts.RunOver:
    """Return the fact that a run is over, for this reason."""
    fields = vars(why)
    limit = fields.get("limit")
    return run_facts.RunOver(
        **stamp(),
        why=_OVER[type(why)],
        limit=limit if isinstance(limit, float) else None,
        error=str(fields.get("error", why.unread)),
        fields=_figures(why),
    )


def _figures(why: Problem) -> dict[str, str | int]:
    """Return the fields of a reason that a fact has by their names."""
    return {name: one for name, one in vars(why).items() if name not in _OF_ANY}


def withheld(task_id: str, why: Problem) -> facts.Withheld | None:
    """Return the fact that an attempt is held back; None where it is only looked at."""
    code = _WITHHELD.get(type(why))
    if code is None:
        return None
    fields = vars(why)
    figures = _figures(why) | ({"limit": fields["limit"]} if "limit" in fields else {})
    return facts.Withheld(
        **stamp(task_id), code=code, names=fields.get("names", ()), fields=figures
    )


class FactLog:
    """The facts that a session collects. Use it from one thread."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._waiting: list[Owned] = []
        self._known: set[Hashable] = set()
        self._store: StoreFinding | None = None
        self.watch: Callable[[str], None] = lambda _task_id: None
        """Called with the job of each fact that is added."""

    def add(self, entry: str | None, fact: run_facts.JobFact | run_facts.RunFact) -> None:
        """Add a fact of an entry, of the run for None."""
        self._waiting.append((entry, fact))
        if fact.job:
            self.watch(fact.job)

    def of(self, job: PendingAttempt, fact: run_facts.JobFact) -> None:
        """Add a fact of a job."""
        self.add(job.entry.id, fact)

    def once(self, fact: run_facts.JobFact, *key: Hashable, entry: str | None = None) -> None:
        """Add a fact of whatever has its task id, once for each key; nothing where nobody knows
        that.

        ``entry``: whose job it is, where that is known.
        """
        if self.is_new(fact.kind, fact.job, *key):
            entry = entry or self.entry_of(fact.job)
            if entry is not None:
                self.add(entry, fact)

    def is_new(self, *key: Hashable) -> bool:
        """Return whether this is asked for the first time in this session."""
        if key in self._known:
            return False
        self._known.add(key)
        return True

    def write(self) -> None:
        """Record what was added, before all else of the caller's transaction."""
        if self._waiting:
            added, self._waiting = self._waiting, []
            self.ledger.facts.append(added)

    def last_seq(self) -> int:
        """Write what was added, and return the last number of the ledger's order."""
        self.write()
        return self.ledger.facts.last_seq()

    def entry_of(self, task_id: str) -> str | None:
        """Return the entry of an attempt, or of a descendant of one; None: it is of none."""
        row = self.ledger.attempts.get(task_id)
        if row is None and (one := self.ledger.descendants.get(task_id)) is not None:
            row = self.ledger.attempts.get(one.root)
        return None if row is None else row.entry

    # What is seen of a job

    def has_died(self, job: PendingAttempt) -> bool:
        """Return whether the process that ran a job is known to be gone."""
        if is_alive(job) is not False:
            return False
        self.gone(job)
        return True

    def gone(self, job: PendingAttempt) -> None:
        """Add that the process is gone which ran a job's last execution."""
        loss, execution = job.loss, job.execution or ""
        pid = None if job.start is None else job.start.pid
        by = facts.FactSource.SEARCH if loss is None else facts.FactSource.SUPERVISOR
        fact = facts.Gone(
            **stamp(job.task_id),
            source=by,
            execution=execution,
            pid=pid,
            exit_code=None if loss is None else loss.returncode,
            worker=job.worker if loss is None else loss.worker,
        )
        self.once(fact, execution, pid, loss, entry=job.entry.id)

    def reported(
        self, task_id: str, execution: str | None, receipt: Receipt, fault: str = ""
    ) -> None:
        """Add an end that is not among the receipts, as it does not count, or not yet.

        The result store is read again and again: each content counts once.
        """
        fact = end_of(0, utc_now(), task_id, receipt, execution, fault)
        self.once(fact, execution, hash(receipt.model_dump_json()), fault)

    def clashing(self, start: facts.Started) -> None:
        """Add the record of a start that differs from the one before it."""
        where = start.worker, start.host, start.pid, start.started_at
        self.once(start, start.execution, start.retries, *where)

    def unreadable(self, task_id: str, why: str) -> None:
        """Add that what the store has of a job cannot be read here."""
        fact = facts.Stored(**stamp(task_id), source=facts.FactSource.STORE, unreadable=why)
        self.once(fact, why)

    def seen(
        self, job: PendingAttempt, place: facts.Place, as_of: int, holder: str | None = None
    ) -> None:
        """Add where a job was found, as that decides something."""
        by = facts.FactSource.SEARCH
        fact = facts.Seen(**stamp(job.task_id), source=by, place=place, as_of=as_of, holder=holder)
        self.of(job, fact)

    def stranded(self, job: PendingAttempt) -> None:
        """Add that a silent worker had taken a job, where one had, as its time is over."""
        if job.stranded:
            self.seen(job, "unacked", self.ledger.facts.last_seq(), job.holder)

    # What is done with a job

    def time_over(self, overdue: Overdue, limit: float) -> None:
        """Add that a job's own time is over (s)."""
        job, by_start = overdue.job, overdue.by_start
        fact = facts.TimeOver(
            **stamp(job.task_id),
            of="timeout" if by_start else "deadline",
            limit=limit,
            execution=job.execution if by_start else None,
        )
        self.of(job, fact)

    def recalled(
        self, task_id: str, why: facts.RecallReason, stage: Stage, entry: str = ""
    ) -> None:
        """Add that the run takes a job back, once for each reason and stage.

        ``entry``: whose job it is, where that is known.
        """
        self.once(facts.Recalled(**stamp(task_id), why=why, stage=stage), why, stage, entry=entry)

    # What is found of the run

    def look_anew(self) -> None:
        """Have the next look at the result store added, whatever the last one has shown."""
        self._store = None

    def store(self, what: StoreFinding, *, is_recorded: bool = False) -> None:
        """Add the finding of a look at the result store where it is another than the last one.

        ``is_recorded``: it is written where it was found.
        """
        before, self._store = self._store, what
        if what != before and not is_recorded:
            self.add(None, run_facts.StoreFact(**stamp(), what=what))

    def searched(
        self, looks: Looks, found: JobLocations, as_of: int, nowhere: Iterable[PendingAttempt]
    ) -> None:
        """Add a search, and which jobs it found in no place; ``as_of``: see ``facts.Nowhere``.

        And which of their processes have ended: that is of the same moment, and comes before it.
        """
        jobs = list(nowhere)
        for job in jobs:
            self.has_died(job)
        by, (first, second) = facts.FactSource.SEARCH, looks
        places = (found.queued, found.with_worker, found.unacked_by_dead, found.missing)
        names = ("queued", "with_worker", "unacked_by_dead", "missing")
        search = run_facts.Search(
            **stamp(),
            source=by,
            as_of=as_of,
            answered=tuple(sorted(first.answered & second.answered)),
            silent=tuple(sorted(first.unresponsive | second.unresponsive)),
            blind_spot=first.blind_spot or second.blind_spot,
            counts=dict(zip(names, map(len, places), strict=True)),
        )
        self.add(None, search)
        for job in jobs:
            self.of(job, facts.Nowhere(**stamp(job.task_id), source=by, as_of=as_of))


def end_segment(ledger: Ledger, how: Ending, *, stopped: datetime | None = None) -> None:
    """Record how a stretch of a run ends; ``stopped``: when, if its jobs end with it."""
    with ledger.transaction():
        ledger.info.set_status(how)
        if stopped is not None:
            ledger.info.stop_segment(stopped)
        ledger.facts.append([(None, run_facts.SegmentEnded(**stamp(), how=how))])


def note_emptied(ledger: Ledger) -> None:
    """Record that the store has lost what it held of the run: starts of what is in flight, too."""
    ledger.facts.append([(None, run_facts.StoreFact(**stamp(), what="emptied"))])


def was_emptied(run: run_facts.RunFacts) -> bool:
    """Return whether the store of a run has lost what it held, be it marked anew since."""
    return any(one.what == "emptied" for one in run.store)


CLOCK: Final = "clock"
"""The ledger's key for what is known of the clock: JSON, see :class:`ClockWatch`."""


@dataclass(frozen=True)
class _ClockNote:
    boot: str | None = None
    ahead: StrictFloat | None = None
    last: StrictFloat | None = None


_NOTED: Final = TypeAdapter(_ClockNote)
NOTICED: Final = 1.0
"""Seconds by which it must have been set to be noted: less than that is drift."""


class ClockWatch:
    """Record of what is in flight that the clock was set back meanwhile, and by how much.

    The monotonic clock, which nobody sets, goes on from one process to the next until the machine
    is started anew. So the ledger has by how much the clock was ahead of it, at most and when that
    last changed, and since which start. Call :meth:`look` often: what is set back and forth between
    two looks is not seen.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        with ledger.parse_errors():
            noted = _NOTED.validate_json(ledger.info.get_meta(CLOCK) or "{}")
        is_known = noted.boot == boot_id() is not None
        self._most = noted.ahead if is_known else None
        self._last = self._most if noted.last is None or not is_known else noted.last

    def look(self) -> None:
        """Compare the clocks, and write down what is new, before anything is judged by it."""
        ahead = utc_now().timestamp() - time.monotonic()
        last, most = self._last, self._most
        if last is not None and abs(ahead - last) <= NOTICED:
            return
        self._last = ahead
        self._most = ahead if most is None else max(most, ahead)
        if last is not None and ahead < last:
            logger.warning("this machine's clock was set back by {:.0f} s", last - ahead)
            by, most = last - ahead, self._most - ahead
            with self._ledger.writing():
                self._ledger.facts.append(
                    [(None, run_facts.SetBack(seq=0, at=utc_now(), by=by, most=most))]
                )
        noted = {"boot": boot_id(), "ahead": self._most, "last": ahead}
        self._ledger.info.set_meta(CLOCK, json.dumps(noted))


Step: TypeAlias = tuple[datetime, float]
"""A moment (UTC), and the limit (s) of a task that holds from then on."""


def record_code(ledger: Ledger, names: Iterable[str], tasks: Mapping[str, object]) -> None:
    """Record the digests of these tasks' code as it is now, before something is sent."""
    known = {one.task: one.code for one in _tasks(ledger) if one.code is not None}
    found = {name: code_digest(tasks[name]) for name in sorted(set(names) & set(tasks))}
    fresh = {name: code for name, code in found.items() if code and known.get(name) != code}
    since = _since(ledger) if known else utc_now()
    ledger.facts.append(
        (None, TaskFact(seq=0, at=since, task=task, code=code)) for task, code in fresh.items()
    )


def _tasks(ledger: Ledger, run: str | None = None) -> Iterator[TaskFact]:
    """Yield what is known of tasks in a run, in order; None: in the ledger's own."""
    facts = ledger.facts.of_run(ledger.info.read().run if run is None else run)
    return (one for one in facts if isinstance(one, TaskFact))


def _since(ledger: Ledger) -> datetime:
    """Return from when on what is recorded now holds: later than all that was sent before.

    Where the clock was set back, what is sent next is judged by what held before for as long.
    """
    last = ledger.attempts.last_sent_at()
    return utc_now() if last is None else max(utc_now(), last + timedelta(microseconds=1))


class OwnLimits:
    """Give an entry the limit that holds for a job as its ``timeout`` (s).

    That is the limit which the task had in the run that sent the job, when that was: what a run is
    resumed with after a task was changed is of the attempts that are sent from then on.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._run_of: Callable[[str], str] = ledger.info.task_runs().run_of
        runs = (*ledger.info.merged(), ledger.info.read().run)
        self._by_run = {run: steps for run in runs if (steps := _limits(ledger, run))}

    def seconds(self, task: str, run: str, sent_at: datetime | None) -> float | None:
        """Return the own limit (s) of a task's job that this run sent then; None: it had none.

        What seems to be sent before the first of them was sent after it, and the clock set back.
        """
        steps = self._by_run.get(run, {})
        if sent_at is not None and steps:
            sent_at = max(sent_at, min(of[0][0] for of in steps.values()))
        for since, own in reversed(steps.get(task, ())):
            if sent_at is None or since <= sent_at:
                return own
        return None

    def of(self, job: PendingAttempt) -> Entry:
        """Return the entry of an attempt, or of a descendant, with the limit of its job."""
        if not self._by_run:
            return job.entry
        own = self.seconds(job.entry.task, self._run_of(job.root), job.sent_at)
        return job.entry if own is None else with_effective_timeout(job.entry, own)


def _limits(ledger: Ledger, run: str) -> dict[str, list[Step]]:
    """Return the limits that tasks had in a run, in order."""
    steps: dict[str, list[Step]] = {}
    for one in _tasks(ledger, run):
        if one.limit is not None:
            steps.setdefault(one.task, []).append((one.at, one.limit))
    return steps


def record_own_limits(ledger: Ledger, seconds: Mapping[str, float]) -> None:
    """Record the limits before something is sent; keep what is known of other tasks.

    They hold for what is sent from now on. That there is none is recorded, too: one that a task
    gets later is not of what was sent before.
    """
    known = {task: of[-1][1] for task, of in _limits(ledger, ledger.info.read().run).items()}
    fresh = {task: own for task, own in seconds.items() if known.get(task) != own}
    since = _since(ledger)
    ledger.facts.append(
        (None, TaskFact(seq=0, at=since, task=task, limit=own)) for task, own in fresh.items()
    )
