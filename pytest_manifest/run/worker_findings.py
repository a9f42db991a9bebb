"""Ask the workers of a run why it does not move: who is there, what they take, what runs long."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import Final, TypeVar

from pytest_manifest.broker import checks
from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.locating import open_locator
from pytest_manifest.broker.locating.amqp import GREEN
from pytest_manifest.broker.locating.base import BrokerSnapshot, JobLocations
from pytest_manifest.broker.locating.worker_replies import ASKING, JOB_QUESTIONS, stack_errors
from pytest_manifest.broker.preflight import NO_CONTROL, look_for_unreadable
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.routing import queue_name
from pytest_manifest.broker.workers import QUESTIONS, Worker, workers_of
from pytest_manifest.errors import DispatchError
from pytest_manifest.processes import (
    STACKS,
    has_ended,
    is_stopped,
    means_the_same_here,
    parse_identity,
    stacks_of,
)
from pytest_manifest.redaction.texts import redact_url
from pytest_manifest.results.backend_results import ResultReader
from pytest_manifest.run.inflight import PendingAttempt
from pytest_manifest.run.ledger_findings import SHOWN, Case, entries_to_come, is_long, running_for
from pytest_manifest.run.missing import UNSAFE_REPAIR, why_starts_may_lack
from pytest_manifest.run.search import WORKERS, JobSearch
from pytest_manifest.schema.wire import STACKS_MARK
from pytest_manifest.text import beginning, duration, listed, plural, short
from pytest_manifest.urls import scheme_of

WORKERS_ANSWER: Final = 3.0
QUIET: Final = 0.5
"""Seconds for the workers' answers, and without a further one after which these are all."""
LONGEST: Final = 5
"""Jobs that run too long of which the stacks are asked for."""
STACKS_LIMIT: Final = 8000
T = TypeVar("T")
Row = Mapping[str, object]


@dataclass
class WorkerQuestions:
    """Put the questions about workers, queues and jobs; findings are in the case's notes.

    ``app``: how commands name the app.
    """

    case: Case
    publisher: Publisher
    app: str
    workers: Mapping[str, Worker] = field(default_factory=dict)
    active: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    held: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    queues: dict[str, set[str]] = field(default_factory=dict)
    """The queues of the run -> their tasks."""
    ended: Collection[str] = ()
    """Task ids of jobs of whose end the result store knows, and no pytest yet."""

    def __post_init__(self) -> None:
        self.notes, self.address = self.case.notes, self.publisher.address
        self.jobs = self.case.pending.by_task_id

    def ask(self) -> None:
        """Ask, and note what is found. Raises StackError where the broker answers no longer."""
        with stack_errors(self.publisher, ASKING):
            self._find_queues()
            if not self._call(self.publisher.control.is_supported):
                scheme = scheme_of(self.address.broker_url)
                self.notes.cannot_see("the workers", NO_CONTROL.format(scheme=scheme))
                return
            self._ask_workers()
            before = self._count_queues()
            search, located = self._search()
            self._add_found_queues(search)
            after = self._count_queues()
            self.notes.looked_at += [f"queues {listed(sorted(after), SHOWN)}"] if after else []
            self._no_workers(after)
            self._placed(search, located)
            self._consumers(after)
            self._tasks()
            self._idle(before, after)
            self._long()

    def _call(self, function: Callable[[], T]) -> T:
        return self.publisher.call(function)

    def _find_queues(self) -> None:
        found = {name: set(tasks) for name, tasks in self.case.pending.queues.items()}
        try:
            for entry in {
                (one.task, one.queue): one for one in entries_to_come(self.case)
            }.values():
                if name := queue_name(self.publisher.routing(entry)):
                    found.setdefault(name, set()).add(entry.task)
        except DispatchError as error:
            self.notes.cannot_see("some queues", str(error))
        self.queues = found

    def _add_found_queues(self, search: JobSearch | None) -> None:
        """Count the queues in which jobs were found, of others that the app has, too."""
        looks = search.looks if search is not None else None
        for task_id, name in looks[1].queued.items() if looks is not None else ():
            if job := self.jobs.get(task_id):
                self.queues.setdefault(name, set()).add(job.entry.task)

    def _ask_workers(self) -> None:
        questions = {**QUESTIONS, **JOB_QUESTIONS}
        answers: Answers = self._call(
            lambda: self.publisher.control.call(
                questions,
                timeout=WORKERS_ANSWER,
                enough=lambda said, quiet: (
                    math.isinf(quiet) or (any(said.values()) and quiet >= QUIET)
                ),
            )
        )
        self.workers = workers_of({name: answers[name] for name in QUESTIONS})
        self.active = {node: _rows(reply) for node, reply in answers["active"].items()}
        self.held = {
            node: [*_rows(answers["reserved"].get(node)), *_rows(answers["scheduled"].get(node))]
            for node in self.workers
        }
        if self.workers:
            names = listed(sorted(self.workers), SHOWN)
            self.notes.looked_at.append(f"{plural(len(self.workers), 'worker')}: {names}")

    def _count_queues(self) -> dict[str, tuple[int, int]]:
        """Count messages and consumers of the run's queues."""
        count = self.publisher.control.count
        found = {name: self._call(partial(count, name)) for name in self.queues}
        return {name: one for name, one in found.items() if one is not None}

    def _no_workers(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Note why no worker answers."""
        if self.workers or not (self.jobs or self.case.unsent):
            return
        connected = self._call(self.publisher.control.count_connected)
        if connected is None:
            connected = max((consumers for _, consumers in counts.values()), default=0)
        asked = f"broker {redact_url(self.address.broker_url)}: no worker answered in "
        asked += f"{WORKERS_ANSWER:g} s, {connected} connected"
        if not connected:
            self.notes.find(
                "no_worker",
                "no worker is connected to the broker",
                [asked],
                f"celery -A {self.app} worker -I pytest_manifest.worker -Q "
                f"{','.join(sorted(self.queues)) or 'celery'}",
            )
            return
        running = [job for job in self.jobs.values() if job.is_running]
        found = look_for_unreadable(self.publisher) if not running else None
        if found is not None:
            self.notes.find(
                "undecodable",
                f"{plural(found.workers, 'worker')} cannot decode {found.format}, the format of "
                "the run's messages: these are thrown away",
                [f"a ping in {found.format} was not answered, one in {listed(found.answered, 3)}"],
                f"add {found.format!r} to accept_content of the workers' app",
            )
        elif running:
            busy = listed(sorted({str(job.worker) for job in running}), SHOWN)
            self.notes.cannot_see(
                "what the workers do",
                f"{asked}; by the ledger {busy} are busy with jobs of the "
                "run, and a worker whose only process runs a job answers nothing meanwhile",
            )
        else:
            self.notes.find(
                "silent_worker",
                f"{plural(connected, 'worker')} connected, and none answers",
                [asked, "ledger: none of them runs a job of this run"],
                "look what they do: with others' jobs (a worker of -P solo answers nothing "
                "meanwhile), or stopped (kill -CONT)",
            )

    def _consumers(self, counts: Mapping[str, tuple[int, int]]) -> None:
        """Note the queues with messages that no worker consumes."""
        unsaid = sorted(name for name, one in self.workers.items() if one.queues is None)
        if unsaid:
            self.notes.cannot_see("the queues of some workers", f"{listed(unsaid, 3)} did not say")
        if not self.workers or unsaid:
            return
        told = [
            f"worker {one.name} consumes {', '.join(sorted(one.queues or ())) or 'no queue'}"
            for one in self.workers.values()
        ]
        for name, (waiting, consumers) in counts.items():
            if not waiting or consumers or self._serving(name):
                continue
            if self.publisher.transport.counts_consumers:
                told = ["the broker counts no consumer of it", *told]
            tasks = listed(sorted(self.queues[name]), SHOWN)
            self.notes.find(
                "no_consumer",
                f"queue {name!r} has {plural(waiting, 'message')} and no consumer",
                [f"queue {name!r}: {waiting} waiting; jobs of {tasks} go there", *told],
                f"celery -A {self.app} control add_consumer {name}, or start a worker with -I "
                f"pytest_manifest.worker -Q {name}; where that is the wrong queue, correct the "
                "entries' queue or the route",
            )

    def _serving(self, queue: str) -> list[Worker]:
        return [one for one in self.workers.values() if queue in (one.queues or ())]

    def _tasks(self) -> None:
        """Note tasks that a worker which would get them does not have."""
        for queue, tasks in sorted(self.queues.items()):
            for worker in self._serving(queue):
                for task in sorted(tasks - worker.tasks.keys()) if worker.tasks else ():
                    near = checks.similar_tasks(task, worker.tasks)
                    jobs = [job for job in self.jobs.values() if job.entry.task == task]
                    near_by = f"worker {worker.name}: registered lists {len(worker.tasks)} tasks, "
                    near_by += f"the nearest is {near[0]}" if near else "none like it"
                    self.notes.find(
                        "unknown_task",
                        f"worker {worker.name} consumes queue {queue!r} and does not know {task}: "
                        "it throws such messages away",
                        [near_by],
                        "deploy the code with this task and restart the worker, or correct the "
                        "task's name, or give it another queue",
                        jobs=jobs,
                    )

    def _idle(
        self, before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]
    ) -> None:
        """Note workers that consume a queue in which messages wait, and take none."""
        stuck = {name for name, (n, _) in after.items() if n and n == before.get(name, (0, 0))[0]}
        for worker in self.workers.values():
            queues = sorted(stuck & (worker.queues or frozenset()))
            runs, holds = self.active.get(worker.name, ()), self.held.get(worker.name, ())
            mine = [one for one in holds if one.get("id") in self.jobs]
            if not (queues or mine) or not worker.has_stats:
                continue
            it_has = (
                f"worker {worker.name}: {plural(worker.slots, 'slot')} ({worker.pool}), runs "
                f"{len(runs)}, holds {len(holds)} more ({len(mine)} of this run), prefetch_count "
                f"{worker.prefetch}"
            )
            waits = (f"queue {one!r}: {after[one][0]} waiting, as before" for one in queues)
            seen = [it_has, *waits]
            others = [one for one in runs if one.get("id") not in self.jobs]
            self._say_idle(worker, runs, holds, others, seen)

    def _say_idle(
        self,
        worker: Worker,
        runs: Sequence[Row],
        holds: Sequence[Row],
        others: Sequence[Row],
        seen: Sequence[str],
    ) -> None:
        if len(runs) >= worker.slots:
            if len(others) < len(runs):
                return  # it does this run's work
            names = sorted({str(one.get("name")) for one in others})
            self.notes.find(
                "busy_elsewhere",
                f"worker {worker.name} is busy with other work than this run's: "
                f"{plural(len(others), 'job')} ({listed(names, SHOWN)})",
                [*seen, *_since(others)],
                f"wait, or start more workers of the queue, or revoke those jobs (celery -A "
                f"{self.app} inspect active -d {worker.name})",
            )
        elif holds:
            self.notes.find(
                "held_back_by_worker",
                f"worker {worker.name} holds {plural(len(holds), 'message')} and begins none, "
                "though it has a free slot",
                [*seen, *(f"held: {one.get('name')} {one.get('id')}" for one in holds[:SHOWN])],
                "they wait for their countdown or eta, for their task's rate_limit, or for a "
                "process that is being replaced; see its log",
            )
        else:
            self.notes.find(
                "takes_nothing",
                f"worker {worker.name} answers, has a free slot and takes nothing",
                seen,
                "see that its priority_steps and global_keyprefix are the app's here; else its "
                "consumer hangs: restart it, its log says what it did last",
            )

    # Where the jobs are

    def _search(self) -> tuple[JobSearch | None, JobLocations | None]:
        if not self.jobs:
            return None, None
        locator = open_locator(self.publisher, sorted(self.queues), self.workers)
        with closing(ResultReader(self.address)) as results:
            search = JobSearch(
                locator,
                self.case.pending,
                retried=lambda tasks: self._call(lambda: results.retried(tasks)),
            )
            search.departures.recall(self.case.ledger.info)
            located = search.search_now()
            if located is not None and not self.case.is_followed:
                self.ended = self._call(lambda: results.read(sorted(located.missing))).keys()
            return search, located

    def _placed(self, search: JobSearch | None, located: JobLocations | None) -> None:
        if search is None or located is None or search.looks is None:
            return
        still = self.case.awaited().by_task_id
        first, second = search.looks
        if blind := second.blind_spot:
            self.notes.cannot_see("where each message is", blind)
        taken = first.unacked.keys() & second.unacked.keys() & still.keys()
        gone = taken & located.unacked_by_dead.keys()
        if not second.answered and self._call(self.publisher.control.count_connected) == 0:
            gone = taken  # whoever had them is not connected any more
        if dead := [self.jobs[task_id] for task_id in sorted(gone)]:
            self._held_by_dead(dead, second)
        silent = [
            job
            for job in map(self.jobs.get, sorted(taken - gone))
            if job and not (job.is_running or second.has_worker(job.task_id))
        ]
        if silent:
            self._held_by_silent(silent, second)
        self._stopped_workers(second)
        answered = listed(sorted(second.answered), SHOWN) or "nobody"
        if elsewhere := [self.jobs[i] for i in search.waits_elsewhere if i in still]:
            self.notes.find(
                "unknown_queue",
                f"{_named(elsewhere)}: between two tries, in a queue that the run does not know",
                [f"result store: RETRY; in no queue of the run, and {answered} has none of it"],
                "see that a worker consumes the queue which the task gives its retry "
                "(self.retry(queue=...)); instrumented workers report that queue",
                jobs=elsewhere,
            )
        if ended := [self.jobs[i] for i in self.ended if i in still]:
            self.notes.find(
                "unread_reports",
                f"{_named(ended)}: ended, and no pytest has read it yet",
                [f"result store: {plural(len(ended), 'result')}"],
                self.case.resume("--manifest-resume" if self.case.unsent else "--manifest-audit"),
                jobs=ended,
            )
        missing = [self.jobs[i] for i in located.missing if i in still and i not in self.ended]
        if missing:
            self.notes.find(
                "nowhere",
                f"{_named(missing)}: in no queue, and with no worker",
                [f"two looks a second apart at the queues and at the jobs of {answered}"],
                "the run judges that by itself within a minute"
                if self.case.is_followed
                else self.case.resume(),
                jobs=missing,
            )

    def _back(self, jobs: Sequence[PendingAttempt], look: BrokerSnapshot) -> list[str]:
        """Say when these were taken, and when the broker gives them back."""
        since = [look.delivered_at[j.task_id] for j in jobs if j.task_id in look.delivered_at]
        if not since:
            return []
        taken = f"broker: taken from the queue from {_clock(min(since))} on"
        told = [one.visibility for one in self.workers.values() if one.visibility]
        timeout = min(told, default=look.visibility_timeout)
        if timeout is None:
            return [taken]
        back = f"given back from {_clock(min(since) + timeout)} on (visibility_timeout {timeout:g})"
        return [taken, f"broker: {back}"]

    def _held_by_dead(self, jobs: Sequence[PendingAttempt], look: BrokerSnapshot) -> None:
        why = why_starts_may_lack(self.case.ledger.jobs.run_facts())
        begun = f"{sum(job.is_running for job in jobs)} of them begun"
        begun = f"how many of them begun is not known: {why}" if why else begun
        if self.address.is_private:
            remedy = "nothing: the run puts back what was not begun, and judges the rest, by itself"
        elif why and not any(job.entry.idempotent for job in jobs):
            ended = "end that pytest by Ctrl-C, then " * self.case.is_followed
            now = f"{ended}{self.case.resume(UNSAFE_REPAIR)} puts them back"
            remedy = f"wait until then; or, where they may run twice, now: {now}"
        elif self.case.is_followed:
            remedy = f"now: end that pytest by Ctrl-C, then {self._repair()}; else wait until then"
        else:
            remedy = f"now: {self._repair()}; else wait until then"
        self.notes.find(
            "held_by_dead",
            f"a worker that is gone holds {_named(jobs)}, {begun}",
            [*self._back(jobs, look), _gone(jobs, look)],
            remedy,
            jobs=jobs,
        )

    def _held_by_silent(self, jobs: Sequence[PendingAttempt], look: BrokerSnapshot) -> None:
        silent = listed(sorted(look.unresponsive), SHOWN) or "a worker"
        self.notes.find(
            "held_by_silent",
            f"no worker that answers has {_named(jobs)}, which were taken from the queue; {silent} "
            "did not answer",
            self._back(jobs, look),
            "of a worker that is busy nothing: it runs them when it can; of one that is gone "
            f"{self._repair()} puts them back as soon as that is certain",
            jobs=jobs,
        )

    def _repair(self) -> str:
        return self.case.resume("--manifest-resume --manifest-repair")

    def _stopped_workers(self, look: BrokerSnapshot) -> None:
        """Note workers of this machine that a signal has stopped."""
        for node, process in sorted(_processes(self.case).items()):
            if node in look.unresponsive and is_stopped(process):
                self.notes.find(
                    "silent_worker",
                    f"worker {node} (process {process}) is stopped",
                    [f"process {process}: its state is T; it answered nothing"],
                    f"kill -CONT {process}",
                )

    # What runs too long

    def _long(self) -> None:
        jobs = [(running_for(job) or 0.0, job) for job in self.jobs.values()]
        tooks = sorted((one for one in jobs if one[0]), key=lambda one: -one[0])
        number = 0
        for ran, job in tooks:
            why = is_long(job, self.case.spreads.get(job.entry.task))
            if not why:
                continue
            number += 1
            if number > LONGEST:
                break
            stacks, unseen = self._stacks(job)
            ends = f"; its timeout ends it after {duration(job.entry.timeout)}"
            remedy = "see in its stacks what it waits for"
            if stacks is None:
                remedy = f"start its worker with {STACKS}=1, which shows what it waits for"
            where = job.start and f"{job.start.worker}, process {job.start.pid}"
            if stacks is None:
                self.notes.cannot_see(f"what {short(job.entry.id)} does", unseen)
            self.notes.find(
                "long_running",
                f"{short(job.entry.id)} has been running for {duration(ran)}, and {why}",
                [f"ledger: it began {duration(ran)} ago on {where}"],
                remedy + ends,
                jobs=[job],
                stacks=stacks,
            )

    def _stacks(self, job: PendingAttempt) -> tuple[str | None, str]:
        """Return the stacks of the process that runs a job; or why they cannot be seen."""
        start = job.start
        if start is None or start.pid is None:
            return None, "its worker did not say which process runs it"
        worker = self.workers.get(start.worker or "")
        if worker is not None and worker.pool in GREEN:
            return None, f"in a pool of {worker.pool} one stack says nothing of the others"
        found = None
        if means_the_same_here(start.host, start.boot, start.namespace):
            if has_ended(start.pid):
                return None, f"its process {start.pid} has ended"
            found = stacks_of(start.pid)
        if found is None and worker is not None and STACKS_MARK in worker.tasks:
            found = self._asked_for_stacks(worker.name, start.pid)
        if found is not None:
            return beginning(found, STACKS_LIMIT), ""
        if worker is None:
            return None, (
                f"worker {start.worker} does not answer, and shows no stacks here; start "
                f"it with {STACKS}=1 (a solo worker shows them on its own machine alone)"
            )
        return None, f"worker {start.worker} was not started with {STACKS}=1"

    def _asked_for_stacks(self, node: str, pid: int) -> str | None:
        answers = self._call(
            lambda: self.publisher.control.call(
                {STACKS_MARK: {"pid": pid}},
                timeout=WORKERS_ANSWER,
                enough=lambda said, _: bool(said[STACKS_MARK]),
                to=[node],
            )
        )
        reply = answers[STACKS_MARK].get(node)
        text = reply.get("stacks") if isinstance(reply, dict) else None
        return text if isinstance(text, str) else None


def _rows(reply: object) -> list[Row]:
    """Read the jobs of a reply; of what waits for its time the request."""
    rows = [one for one in reply if isinstance(one, dict)] if isinstance(reply, list) else []
    return [one["request"] if isinstance(one.get("request"), dict) else one for one in rows]


def _since(rows: Iterable[Row]) -> list[str]:
    found = []
    for one in list(rows)[:SHOWN]:
        began = one.get("time_start")
        since = f" since {_clock(began)}" if isinstance(began, (int, float)) else ""
        found.append(f"runs {one.get('name')} {one.get('id')}{since}")
    return found


def _named(jobs: Sequence[PendingAttempt]) -> str:
    names = sorted({job.entry.id for job in jobs})
    return f"{plural(len(jobs), 'job')} ({listed([short(one) for one in names], SHOWN)})"


def _gone(jobs: Sequence[PendingAttempt], look: BrokerSnapshot) -> str:
    workers = {job.worker for job in jobs if job.worker} or look.unresponsive
    return f"workers: {listed(sorted(map(str, workers)), SHOWN) or 'it'} answers no more"


def _processes(case: Case) -> dict[str, int]:
    """Map the workers of this machine -> their main processes, as the ledger has them."""
    kept = json.loads(case.ledger.info.get_meta(WORKERS) or "{}")
    known = {node: parse_identity(process) for node, (process, _) in kept.items()}
    return {node: one.pid for node, one in known.items() if one is not None and one.is_here}


def _clock(moment: float) -> str:
    """Format a moment of the epoch as the local time."""
    return datetime.fromtimestamp(moment, timezone.utc).astimezone().strftime("%H:%M:%S")
