"""The rules by which a stack is judged before a dispatch, and by ``--manifest-check``: one table.

What would have a dispatch refused, or its jobs never come to their end, is an error, what may is a
warning, and what cannot be seen from here is said to be unchecked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final, NamedTuple

from pytest_manifest.broker import checks, stores
from pytest_manifest.broker.checks import Demand, Finding, Level, TaskAndQueue, demand_of, some_of
from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.locating.worker_replies import ask_workers, stack_errors
from pytest_manifest.broker.messages import sending_notice
from pytest_manifest.broker.redelivery import redelivery_findings, visibility_of
from pytest_manifest.broker.routing import queue_name, reserved
from pytest_manifest.broker.workers import (
    QUESTIONS,
    STORE_QUESTION,
    Worker,
    acks_late,
    pool_warnings,
    unsaid_warnings,
)
from pytest_manifest.errors import DispatchError
from pytest_manifest.redaction.texts import redact
from pytest_manifest.schema import Entry
from pytest_manifest.schema.wire import WORKER_MARK
from pytest_manifest.text import plural
from pytest_manifest.urls import is_rpc

if TYPE_CHECKING:
    from celery import Task

    from pytest_manifest.broker.publisher import Publisher
    from pytest_manifest.broker.redelivery import Visibility


RETRIED: Final = "retry_on_worker_lost"
"""The option of tasks, from Celery 5.7 on."""


@dataclass(frozen=True)
class Case:
    """A stack as its workers report it, and what is asked of it.

    ``queues``: where the entries of a task and queue go. ``given``: the demand is that of
    manifests, not of all tasks of the app. ``allowed``: patterns of the tasks that may be sent;
    ``accepted``: the risks that are warnings, by their words of ``manifest_accept``.
    """

    publisher: Publisher
    demand: Demand
    workers: Sequence[Worker]
    queues: Mapping[TaskAndQueue, str | None]
    given: bool = True
    allowed: Sequence[str] | None = None
    accepted: Collection[str] = ()

    @cached_property
    def needed(self) -> dict[str, set[str]]:
        """Map each queue that jobs go to -> their tasks."""
        return checks.tasks_by_queue(self.queues)

    @cached_property
    def stock(self) -> list[str]:
        """List the workers that hand in no receipts."""
        return [one.name for one in self.workers if one.is_stock]

    @cached_property
    def held_for(self) -> Visibility | None:
        """Return how long the broker lets a worker hold a message; None: as long as it likes."""
        if self.publisher.transport.visibility_timeout is None:
            return None
        return visibility_of(self.publisher, self.workers, sorted(self.needed))

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """Map the tasks of the jobs -> what the app has of them here."""
        known = self.publisher.tasks
        return {name: known[name] for name in self.demand.tasks if name in known}

    @cached_property
    def late(self) -> dict[str, float | None]:
        """Map each task that is acknowledged late -> its hard time limit (s), None for none."""
        late = {task for task, flag in acks_late(self.workers).items() if flag}
        if not self.workers:
            late = {name for name, task in self.publisher.tasks.items() if task.acks_late}
        limits = self.publisher.limits
        return {name: limits.limit_for(name, {}).hard for name in self.demand.tasks if name in late}

    @cached_property
    def stores(self) -> tuple[list[str], list[str]]:
        """Say why results would not be found, and why they may not be."""
        publisher = self.publisher
        return stores.refusals(
            publisher.app, publisher.address, list(self.tasks.values()), self.workers
        )

    @cached_property
    def unkept(self) -> tuple[list[str], list[str]]:
        """Say of which tasks no end is kept, and of which none of a job that was retried."""
        return stores.unkept_ends(self.workers, self.needed)


Found = Iterable[str | Finding]


class Rule(NamedTuple):
    """One rule: what it checks, how severe it is in a check and before a dispatch, and what it
    finds of a case; a finding of its own level is found as such. None: it is not asked there."""

    check: str
    in_check: Level | None
    before_sending: Level | None
    find: Callable[[Case], Found]


def findings(case: Case, *, sending: bool = False) -> Iterator[Finding]:
    """Yield what the rules find."""
    for rule in RULES:
        level = rule.before_sending if sending else rule.in_check
        if level is not None:
            for said in rule.find(case):
                yield Finding(level, rule.check, said) if isinstance(said, str) else said


def _tasks(case: Case) -> Found:
    if not case.demand.tasks:
        text = "the app has no tasks; see what its imports and include name"
        yield Finding("warning", "tasks", text)
    unknown = checks.unknown_tasks(case.demand.tasks, case.workers)
    for task, near in unknown.items():
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        yield (
            f"no worker that answered has the task {task}, so its jobs would not be run{hint}; "
            "start or deploy a worker whose app has it, or correct the name"
        )
    if case.demand.tasks and case.workers and not unknown and all(w.tasks for w in case.workers):
        whose = "the manifest" if case.given else "the app"
        known = f"{plural(len(case.demand.tasks), 'task')} of {whose}, each known to a worker"
        yield Finding("ok", "tasks", known)


def _reserved(case: Case) -> Found:
    for queue in sorted(case.needed):
        if phrase := reserved(queue, case.publisher.app, case.publisher.transport):
            yield f"no job may go to queue {queue!r}: {phrase}"


def idle(case: Case) -> list[str]:
    """List the queues that no worker consumes; none where one did not say what it does."""
    return checks.idle_queues(case.needed, case.workers) if case.workers else []


def _idle(case: Case) -> Found:
    if case.publisher.address.is_private:
        return  # its workers are told to consume what is needed
    for queue in idle(case):
        yield (
            f"no worker that answered consumes queue {queue!r}, where jobs of "
            f"{some_of(sorted(case.needed[queue]))} go; start a worker with -Q {queue}, run "
            f"'celery control add_consumer {queue}', or correct the route"
        )


def _consumed(case: Case) -> Found:
    if case.workers and not idle(case) and all(one.queues is not None for one in case.workers):
        yield f"{some_of(sorted(case.needed))}: consumed"


def holding(case: Case) -> list[Finding]:
    """Return which entries a worker may hold for longer than the broker lets it."""
    if case.held_for is None:
        return []
    publisher, demand = case.publisher, case.demand
    return redelivery_findings(
        publisher, demand, case.workers, case.queues, case.held_for, case.accepted
    )


def _held(case: Case) -> Found:
    if case.held_for is None:
        return
    timeout = case.held_for.timeout
    found = holding(case) if case.given else late_limits(case.late, timeout, case.held_for.where)
    yield from found or [
        Finding("ok", "limits", f"all below the visibility timeout of {timeout:g} s")
    ]


def late_limits(late: Mapping[str, float | None], timeout: float, where: str) -> list[Finding]:
    """Hold the limits of tasks that are acknowledged late against the visibility timeout (s).

    ``where``: what the timeout is set by.
    """
    beyond = (
        f"task {name} is acknowledged late and may run for {limit:g} s, but this broker "
        f"hands its message to another worker after {timeout:g} s, and the job would run "
        f"twice; raise {where}, or lower its time_limit"
        for name, limit in late.items()
        if limit is not None and limit >= timeout
    )
    found = [Finding("error", "limits", said) for said in beyond]
    if without := [name for name, limit in late.items() if limit is None]:
        said = (
            f"{some_of(without)}: acknowledged late and without a time limit; a job that runs "
            f"longer than the visibility timeout of {timeout:g} s is run a second time; set "
            "time_limit"
        )
        found.append(Finding("warning", "limits", said))
    return found


def _of_broker(case: Case) -> Found:
    return case.publisher.transport.warnings(case.demand.longest_held(case.late))


def _acknowledgement(case: Case) -> Found:
    if case.given:
        yield from checks.acknowledgement_notices(case.demand, acks_late(case.workers))
    elif case.late:
        said = (
            f"{some_of(sorted(case.late))}: acknowledged late, so a job runs again where its "
            'worker dies; whether that does harm only a manifest says ("idempotent"): add '
            "--manifest=FILE"
        )
        yield Finding("unchecked", "acks_late", said)


def ends(tasks: Mapping[str, Task], demand: Demand, *, given: bool) -> Iterator[Finding]:
    """Say of which tasks Celery 5.7 sends a job again whose process has died."""
    known = {name: tasks[name] for name in demand.tasks if name in tasks}
    needs = {name for name, one in demand.tasks.items() if one.idempotent < one.count}
    retried = [name for name, task in known.items() if getattr(task, RETRIED, None)]
    if retried := [name for name in retried if name in needs or not given]:
        said = (
            f"{some_of(sorted(retried))}: a job whose process dies is sent again by its worker "
            f"({RETRIED}), and entries of it {'are' if given else 'may be'} not declared "
            'idempotent; declare them ("idempotent": true), or leave the option out'
        )
        yield Finding("warning" if given else "unchecked", "acks_late", said)


def _namesakes(case: Case) -> Found:
    publisher, names = case.publisher, [one.name for one in case.workers]
    if not names or publisher.address.is_private or publisher.transport.in_process:
        return
    with stack_errors(publisher):
        shared = publisher.call(lambda: publisher.control.namesakes(names))
    if shared:
        yield (
            f"more workers are connected than have names ({some_of(shared)}): of those that share "
            "one only one is seen, and what the other has would be taken for lost; start each with "
            "a name of its own, by -n one@%h"
        )


RPC: Final = (
    "results of rpc:// come back only to the process that sent the job, so "
    "--manifest-dispatch-only, --manifest-audit and --manifest-resume cannot be used"
)


def _pools(case: Case) -> Found:
    return (
        [] if case.publisher.transport.in_process else pool_warnings(case.workers)
    )  # whose page says it


def _senders(case: Case) -> Found:
    called = case.publisher.calls_own_senders
    return sending_notice(case.publisher.own_senders, case.demand.tasks, called=called)


def _unkept(case: Case) -> Found:
    for said in case.unkept[0]:
        yield said if case.given else Finding("warning", "store", said)


def _unsaid(case: Case) -> Found:
    return unsaid_warnings(case.workers, case.publisher.app.conf.task_serializer)


def _receipts(case: Case) -> Found:
    if case.stock:
        yield (
            f"{some_of(case.stock)}: without our instrumentation, so when a job starts, its log "
            "and its evidence are not seen; start the worker with -I pytest_manifest.worker"
        )


def eager(publisher: Publisher) -> list[Finding]:
    """Refuse an app whose tasks never reach a worker; on a stack of ours that is switched off."""
    address = publisher.address
    if address.app is None or not publisher.app.conf.task_always_eager:
        return []
    ours = address.is_private or address.is_managed
    return [
        Finding("ok", "app", checks.EAGER_HERE) if ours else Finding("error", "app", checks.EAGER)
    ]


RULES: Final = (
    Rule("app", "error", "error", lambda c: eager(c.publisher)),
    Rule("tasks", "error", None, lambda c: checks.task_refusals(c.demand.tasks, c.allowed)),
    Rule("tasks", "error", None, _tasks),
    Rule("queues", "error", None, _reserved),
    Rule("store", "error", "error", lambda c: c.stores[0]),
    Rule("store", "warning", "warning", lambda c: c.stores[1]),
    Rule("store", "warning", None, lambda c: [RPC] * is_rpc(c.publisher.address.backend_url)),
    Rule("store", "error", "error", _unkept),
    Rule("store", "warning", "warning", lambda c: c.unkept[1]),
    Rule("apply_async", "warning", "warning", _senders),
    Rule("workers", "unchecked", "warning", _unsaid),
    Rule("workers", "error", "error", _namesakes),
    Rule("limits", "warning", "warning", lambda c: c.held_for.warnings() if c.held_for else ()),
    Rule("limits", "error", None, _held),
    Rule("limits", "warning", None, _of_broker),
    Rule("pools", "warning", "warning", _pools),
    Rule("queues", "error", "warning", _idle),
    Rule("queues", "ok", None, _consumed),
    Rule("acks_late", "warning", "ok", _acknowledgement),
    Rule("acks_late", "warning", None, lambda c: ends(c.tasks, c.demand, given=c.given)),
    Rule(
        "receipts",
        "warning",
        None,
        lambda c: checks.unmeasured_times(c.demand, c.stock) if c.given else (),
    ),
    Rule("receipts", "unchecked", None, _receipts),
)
"""Before a dispatch, what is an error refuses it, and what is well (``ok``) is a notice."""

ASKING: Final = 2.0  # s
ASKING_LISTENERS: Final = 8.0  # s, once more, as those who listen may be slow: on a loaded machine
QUIET: Final = 0.5  # s


def ask_for_check(publisher: Publisher, seconds: float = ASKING) -> list[Worker]:
    """Ask who works here, for so long at most; raises what the transport raises."""
    questions = {**QUESTIONS, **STORE_QUESTION}

    def enough(answers: Answers, quiet: float) -> bool:
        return math.isinf(quiet) or (any(answers.values()) and quiet > QUIET)

    return ask_workers(publisher, questions, timeout=seconds, enough=enough)


def check(
    publisher: Publisher,
    workers: Sequence[Worker],
    entries: Iterable[Entry] | None,
    allowed: Sequence[str] | None = None,
    accepted: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield what the rules find, with the entries of manifests or, for None, the app's tasks.

    ``allowed`` and ``accepted`` as in :class:`Case`.
    """
    publisher.limits.update(workers)
    names = sorted(filter(is_of_project, publisher.tasks))
    wanted = entries if entries is not None else (Entry(id="check", task=name) for name in names)
    try:
        demand = demand_of(wanted, own_limit=publisher.own_limit)
        queues = {key: queue_name(publisher.routing(one)) for key, one in demand.samples.items()}
    except DispatchError as error:
        yield Finding("error", "queues", str(error))
        return
    except Exception as error:  # of a route of the project's, which may look at arguments
        reason = redact(f"{type(error).__name__}: {error}")
        yield Finding("unchecked", "queues", f"a route of the app raised {reason}")
        return
    given = entries is not None
    yield from findings(
        Case(publisher, demand, workers, queues, given, allowed if given else None, accepted)
    )


def is_of_project(task: str) -> bool:
    """Tell whether a task is neither Celery's nor ours, by its name."""
    return not task.startswith(("celery.", WORKER_MARK))
