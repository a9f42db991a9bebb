"""Check before a dispatch that the stack can run the jobs, once each.

Find out whether anybody is there: workers that answer, and those that are only connected.

A worker whose only process runs a job answers nothing, and neither does one that cannot decode what
it is asked; but its broker knows that it is there.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from celery import __version__

from pytest_manifest.broker import checks, rules
from pytest_manifest.broker.checks import Demand, Finding, Level, tasks_by_queue
from pytest_manifest.broker.control import Answers, by_node
from pytest_manifest.broker.locating.worker_replies import (
    ASKING,
    QUIET_TIME,
    TIMEOUT,
    ask_workers,
    stack_errors,
)
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.redelivery import Visibility
from pytest_manifest.broker.routing import queue_name
from pytest_manifest.broker.workers import (
    QUESTIONS,
    STORE_QUESTION,
    Worker,
    known_codes,
    workers_of,
)
from pytest_manifest.urls import scheme_of

NO_CONTROL: Final = (
    "a broker reached by {scheme}:// carries no remote control, so no worker can be asked: task "
    "names, queues, time limits and the workers' result store are unchecked, no job can be revoked "
    "or looked for, and one that nobody reports is judged when its time is over"
)
"""Said before anything is sent, where no worker can be asked."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """The findings of preflight; every sentence is meant for the user.

    ``unknown_tasks``: task -> nearest registered names; these must not be sent. ``findings``: an
    error is a reason not to send anything. ``answered``: whether any worker did. ``workers``: their
    node names, ``described`` as they describe themselves; ``slots``: jobs that they run at once.
    ``added_queues``: queues that the workers were told to consume; a worker that restarts must be
    told again (:func:`add_consumers`). ``queues``: the names of all queues that the jobs go to.
    ``stock``: the workers that hand in no receipts, so that their starts are unknown; ``idle``:
    queues of them that no worker consumes which answered, so that any kind of worker may come for
    them. ``signers``: of each worker that listed its tasks, the id of the key that it signs with.
    ``codes``: the digest of each task's code that would run, as far as the workers tell it.
    ``held_for``: how long the broker lets a worker hold a message; None: as long as it likes.
    ``takes_one``: whether no worker holds more jobs than it runs. ``holding``: what may be held for
    longer; an error among it is a reason not to send anything.
    """

    unknown_tasks: dict[str, list[str]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    answered: bool = False
    workers: list[str] = field(default_factory=list)
    described: list[Worker] = field(default_factory=list)
    slots: int = 0
    added_queues: list[str] = field(default_factory=list)
    queues: list[str] = field(default_factory=list)
    stock: list[str] = field(default_factory=list)
    idle: list[str] = field(default_factory=list)
    signers: dict[str, str | None] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    held_for: Visibility | None = None
    holding: list[Finding] = field(default_factory=list)
    takes_one: bool = False

    def celery(self, *, is_private: bool) -> str:
        """Name the versions of the workers' Celery; those of a private stack have this one."""
        told = {one.celery for one in self.described if one.celery}
        return ", ".join(sorted(told | ({__version__} if is_private else set())))

    def said(self, level: Level) -> list[str]:
        """List the sentences of a level; of ``ok`` they are notices."""
        return [one.message for one in self.findings if one.level == level]


def preflight(
    publisher: Publisher,
    demand: Demand,
    *,
    expected_workers: int | None = None,
    timeout: float = TIMEOUT,
    accepted: Collection[str] = (),
) -> Preflight:
    """Ask the workers, for ``timeout`` s at most, and hold the demand against their answers.

    ``accepted``: the risks that are warnings, by their words of ``manifest_accept``.
    With ``expected_workers`` it ends when so many have answered, else when no more answers come
    and nothing is missing. On a stack of our own it has idle queues consumed.

    Raises:
        StackError: the broker cannot be reached.
        DispatchError: an entry names a queue that the app does not have.
    """
    queues = {key: queue_name(publisher.routing(entry)) for key, entry in demand.samples.items()}
    workers, warning = _ask(publisher, demand, tasks_by_queue(queues), expected_workers, timeout)
    publisher.limits.update(workers)
    unknown = checks.unknown_tasks(demand.tasks, workers)
    sendable = demand.without(unknown)
    case = rules.Case(
        publisher, sendable, workers, {k: queues[k] for k in sendable.samples}, accepted=accepted
    )
    found = [Finding("warning", "workers", warning)] if warning else []
    idle, is_private = rules.idle(case), publisher.address.is_private
    return Preflight(
        unknown_tasks=unknown,
        findings=[*found, *rules.findings(case, sending=True)],
        answered=bool(workers),
        workers=[worker.name for worker in workers],
        described=workers,
        slots=sum(worker.slots for worker in workers),
        added_queues=serve(publisher, idle) if is_private else [],
        queues=sorted(case.needed),
        stock=case.stock,
        idle=[] if is_private else idle,
        signers={worker.name: worker.key_id for worker in workers if worker.tasks},
        codes=known_codes(workers),
        held_for=case.held_for,
        holding=rules.holding(case),
        takes_one=bool(workers) and all(worker.takes_one for worker in workers),
    )


def add_consumers(publisher: Publisher, queues: Iterable[str]) -> None:
    """Have every worker consume these queues as well; those that do already are not disturbed."""
    for name in queues:
        queue = publisher.app.amqp.queues[name]
        order = {
            "queue": name,
            "exchange": queue.exchange.name or None,
            "exchange_type": queue.exchange.type,
            "routing_key": queue.routing_key or name,
        }
        publisher.call(partial(publisher.control.cast, "add_consumer", order))


def _ask(
    publisher: Publisher,
    demand: Demand,
    needed: Mapping[str, set[str]],
    expected: int | None,
    timeout: float,
) -> tuple[list[Worker], str]:
    """Ask who works here; also a warning where that is not all that should have answered."""
    address = publisher.address
    ours = address.is_private or address.is_managed
    questions = QUESTIONS if ours else {**QUESTIONS, **STORE_QUESTION}

    def enough(answers: Answers, quiet: float) -> bool:
        nodes = by_node(answers)
        if not nodes or any(len(said) < len(questions) for said in nodes.values()):
            return False
        if expected is not None:
            return len(nodes) >= expected
        if math.isinf(quiet):
            return True
        # What looks missing may be with a worker that is slow to answer, so that waits longer.
        found = list(workers_of(answers).values())
        return quiet >= QUIET_TIME and not (
            checks.unknown_tasks(demand.tasks, found) or checks.idle_queues(needed, found)
        )

    with stack_errors(publisher, ASKING):
        workers = ask_workers(publisher, questions, timeout=timeout, enough=enough)
        if not workers and not publisher.call(publisher.control.is_supported):
            return [], NO_CONTROL.format(scheme=scheme_of(address.broker_url))
    if not workers:
        return [], (
            f"no worker answered within {timeout:g} s (none started yet, or all busy), so task "
            "names and queues could not be checked; jobs wait in their queue until one starts"
        )
    if expected is not None and len(workers) < expected:
        names = ", ".join(worker.name for worker in workers)
        some = f"only {len(workers)} of {expected} workers answered"
        return workers, f"{some} within {timeout:g} s: {names}"
    return workers, ""


def serve(publisher: Publisher, queues: list[str]) -> list[str]:
    """Have a stack of our own consume these queues; return those that its broker lets it.

    Raises:
        StackError: the broker cannot be reached.
    """
    with stack_errors(publisher):
        # A worker that is told to consume what its broker refuses dies of it, again and again.
        refused = publisher.refusals(queues) if queues else {}
        wanted = [name for name in queues if name not in refused]
        add_consumers(publisher, wanted)
    return wanted


@dataclass(frozen=True, slots=True)
class Presence:
    """Hold who is there: node names.

    ``serving``: answered, and consume a queue of the run, or have not said which; ``others``:
    answered, and consume none of them. ``silent``: how many are connected to the broker and did not
    answer; None: it is not known whether there are any. ``idle``: queues of the run that none of
    those that answered consumes.
    """

    serving: frozenset[str]
    others: frozenset[str]
    silent: int | None
    idle: Sequence[str] = ()


def look_for_workers(publisher: Publisher, queues: Collection[str]) -> Presence:
    """Ask for a second who consumes these queues; without any, every worker counts.

    Raises:
        StackError: the broker cannot be reached.
    """
    with stack_errors(publisher):
        found = ask_workers(
            publisher,
            {"active_queues": {}},
            enough=lambda said, quiet: bool(said["active_queues"]) and quiet > QUIET_TIME,
        )
        serving = frozenset(
            one.name
            for one in found
            if not queues or one.queues is None or not one.queues.isdisjoint(queues)
        )
        silent = publisher.call(lambda: _silent(publisher, queues, len(found), len(serving)))
    idle = checks.idle_queues(queues, found) if found else []
    return Presence(serving, frozenset(one.name for one in found) - serving, silent, idle)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Hold what shows that workers cannot decode the app's messages.

    ``workers``: how many answer nothing in the app's ``format``, and in one of ``answered``.
    """

    workers: int
    format: str
    answered: Sequence[str]


def look_for_unreadable(publisher: Publisher) -> Unreadable | None:
    """Ask for a second who understands another format than the app's; None: nobody, or not sure.

    A worker that is busy answers in none, and one that has become free in the app's, too.

    Raises:
        StackError: the broker cannot be reached.
    """
    with stack_errors(publisher):
        found = publisher.call(lambda: publisher.control.count_by_format(timeout=TIMEOUT))
    own = publisher.control.format
    if not found or own in found:
        return None
    return Unreadable(max(found.values()), own, sorted(found))


def _silent(
    publisher: Publisher, queues: Collection[str], answered: int, serving: int
) -> int | None:
    connected = publisher.control.count_connected()
    if connected is not None:
        return max(0, connected - answered)
    if not queues or not publisher.transport.counts_consumers:
        return None
    counts = [publisher.control.count(name) or (0, 0) for name in queues]
    return max(0, max(consumers for _, consumers in counts) - serving)
