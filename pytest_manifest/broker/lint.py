"""Hold a stack, as its workers report it, against an app's tasks or a manifest, and send nothing.

Each rule yields findings; what would have a dispatch refused, or its jobs never come to their end,
is an error, what may is a warning, and what cannot be seen from here is said to be unchecked.

Check for how long the broker lets a worker hold a message before it hands it out again.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pytest_manifest.broker import checks, stores
from pytest_manifest.broker.checks import (
    Demand,
    Finding,
    TaskAndQueue,
    demand_of,
    some_of,
    task_refusals,
    tasks_by_queue,
)
from pytest_manifest.broker.client import AMQP_SCHEMES
from pytest_manifest.broker.control import Answers, by_node
from pytest_manifest.broker.messages import sending_notice
from pytest_manifest.broker.redelivery import hands_out_again, redelivery_findings, visibility_of
from pytest_manifest.broker.routing import queue_name, reserved
from pytest_manifest.broker.workers import (
    QUESTIONS,
    STORE_QUESTION,
    Worker,
    acks_late,
    pool_warnings,
    unsaid_warnings,
    workers_of,
)
from pytest_manifest.errors import DispatchError
from pytest_manifest.redaction import redact
from pytest_manifest.schema import Entry
from pytest_manifest.schema.wire import WORKER_MARK
from pytest_manifest.text import plural
from pytest_manifest.urls import scheme_of

if TYPE_CHECKING:
    from celery import Task

    from pytest_manifest.broker.publisher import Publisher


CONSUMER_TIMEOUT: Final = 1800.0
"""Seconds after which RabbitMQ takes back an unacknowledged message, unless it is set otherwise."""
TRIED_RABBITMQ: Final = (4, 0, 1)
"""The first release of RabbitMQ 4, the oldest with which delayed messages are tried here."""


def holding_findings(
    publisher: Publisher,
    demand: Demand,
    workers: Sequence[Worker],
    queues: Mapping[TaskAndQueue, str | None],
    *,
    given: bool,
    accepted: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield what becomes of messages that workers hold for long, as far as this broker says it.

    ``queues``: where the entries of a task and queue go. ``given``: the demand is that of
    manifests, not of all tasks of the app. ``accepted``: the risks that are no errors.
    """
    if hands_out_again(publisher.address.broker_url):
        yield from _limits(publisher, demand, workers, queues, given=given, accepted=accepted)
    if scheme_of(publisher.address.broker_url) in AMQP_SCHEMES:
        late = late_tasks(publisher, demand, workers)
        version = publisher.call(lambda: _server_version(publisher))
        yield from rabbitmq(version, demand, late, quorum=_quorum_queue(publisher))


def _limits(
    publisher: Publisher,
    demand: Demand,
    workers: Sequence[Worker],
    queues: Mapping[TaskAndQueue, str | None],
    *,
    given: bool,
    accepted: Collection[str],
) -> Iterator[Finding]:
    timeouts = {one.visibility for one in workers if one.visibility is not None}
    if len(timeouts) > 1:
        named = ", ".join(f"{seconds:g} s" for seconds in sorted(timeouts))
        yield Finding(
            "warning",
            "limits",
            f"workers have different visibility timeouts ({named}): the one with the shortest "
            "takes back what another still runs; set one visibility_timeout for all",
        )
    held_for = visibility_of(publisher, workers, sorted(tasks_by_queue(queues)))
    yield from (Finding("warning", "limits", sentence) for sentence in held_for.warnings())
    if not given:
        late = late_tasks(publisher, demand, workers)
        yield from late_limits(late, held_for.timeout, held_for.where)
        return
    found = redelivery_findings(publisher, demand, workers, queues, held_for, accepted)
    yield from found
    if not found:
        yield Finding("ok", "limits", f"all below the visibility timeout of {held_for.timeout:g} s")


def late_tasks(
    publisher: Publisher, demand: Demand, workers: Sequence[Worker]
) -> dict[str, float | None]:
    """Map each task that is acknowledged late -> its hard time limit (s), None for no limit."""
    late = {task for task, flag in acks_late(workers).items() if flag}
    if not workers:
        late = {name for name, task in publisher.tasks.items() if task.acks_late}
    return {
        name: publisher.limits.limit_for(name, {}).hard for name in demand.tasks if name in late
    }


def late_limits(late: Mapping[str, float | None], timeout: float, where: str) -> Iterator[Finding]:
    """Hold the limits of tasks that are acknowledged late against the visibility timeout (s).

    ``where``: what the timeout is set by.
    """
    beyond = [name for name, limit in late.items() if limit is not None and limit >= timeout]
    without = [name for name, limit in late.items() if limit is None]
    for name in beyond:
        yield Finding(
            "error",
            "limits",
            f"task {name} is acknowledged late and may run for {late[name]:g} s, but this broker "
            f"hands its message to another worker after {timeout:g} s, and the job would run "
            f"twice; raise {where}, or lower its time_limit",
        )
    if without:
        yield Finding(
            "warning",
            "limits",
            f"{some_of(without)}: acknowledged late and without a time limit; a job that runs "
            f"longer than the visibility timeout of {timeout:g} s is run a second time; set "
            "time_limit",
        )
    if not beyond and not without:
        yield Finding("ok", "limits", f"all below the visibility timeout of {timeout:g} s")


def _server_version(publisher: Publisher) -> str:
    """Return what the AMQP server says of its version when a client connects, "" for nothing."""
    with publisher.control.channel() as channel:
        properties = getattr(channel.connection, "server_properties", None) or {}
    version = properties.get("version", "")
    return version.decode() if isinstance(version, bytes) else str(version)


def _quorum_queue(publisher: Publisher) -> str:
    """Return the first quorum queue that the app declares, "" for none."""
    for name, queue in sorted(publisher.app.amqp.queues.items()):
        if (queue.queue_arguments or {}).get("x-queue-type") == "quorum":
            return str(name)
    return ""


def rabbitmq(version: str, demand: Demand, late: Iterable[str], *, quorum: str) -> list[Finding]:
    """Say what RabbitMQ of this version does with messages that are held for long.

    ``quorum``: the first quorum queue of the app, "" for none.
    """
    found: list[Finding] = []
    delayed = [name for name, task in demand.tasks.items() if task.longest_delay]
    number = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if (delayed or quorum) and number and number < TRIED_RABBITMQ:
        what = f"jobs of {some_of(delayed)}" if delayed else f"delayed jobs to queue {quorum!r}"
        found.append(
            Finding(
                "warning",
                "rabbitmq",
                f"RabbitMQ {version} is older than 4.0.1, and {what} have a countdown or eta: "
                "Celery's delayed delivery is tried from 4.0.1 on; bring the broker up to date",
            )
        )
    if (delayed or quorum) and not number:
        said = "the server does not report its version; delayed jobs are tried from 4.0.1 on"
        found.append(Finding("unchecked", "rabbitmq", said))
    if delayed and quorum:
        found.append(
            Finding(
                "warning",
                "rabbitmq",
                f"queue {quorum!r} is a quorum queue, so a job with a countdown or eta keeps one "
                "of its worker's places until its time has come, and others wait behind it; leave "
                "the countdown out, or raise worker_prefetch_multiplier",
            )
        )
    lasting = set(late)
    for name, task in sorted(demand.tasks.items()):
        held = task.longest_occupation if name in lasting else task.longest_delay
        if held >= CONSUMER_TIMEOUT:
            found.append(
                Finding(
                    "warning",
                    "limits",
                    f"task {name} may keep a message unacknowledged for {held:g} s, and RabbitMQ "
                    f"closes the channel after its consumer_timeout ({CONSUMER_TIMEOUT:g} s unless "
                    "it is set otherwise), so that the job runs twice; raise consumer_timeout",
                )
            )
    return found


ASKING: Final = 2.0  # s
ASKING_LISTENERS: Final = 8.0  # s, once more, as those who listen may be slow: on a loaded machine
QUIET: Final = 0.5  # s
RETRIED: Final = "retry_on_worker_lost"
ON_TIMEOUT: Final = "acks_on_timeout"
ON_FAILURE: Final = "acks_on_failure"
"""Options of tasks, from Celery 5.7 on."""
SQL_TRANSPORTS: Final = ("sqla", "sqlalchemy")


def ask_workers(publisher: Publisher, seconds: float = ASKING) -> list[Worker]:
    """Ask who works here, for so long at most; raises what the transport raises."""

    def enough(answers: Answers, quiet: float) -> bool:
        return math.isinf(quiet) or (bool(by_node(answers)) and quiet > QUIET)

    questions = {**QUESTIONS, **STORE_QUESTION}
    answers = publisher.call(
        lambda: publisher.control.call(questions, timeout=seconds, enough=enough)
    )
    return list(workers_of(answers).values())


def lint(
    publisher: Publisher,
    workers: Sequence[Worker],
    entries: Iterable[Entry] | None,
    allowed: Sequence[str] | None = None,
    accepted: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield what the checks find, with the entries of manifests or, for None, the app's tasks.

    ``allowed``: patterns of the tasks that a run may send; see ``may_send``. ``accepted``: the
    risks that are warnings, by their words of ``manifest_accept``.
    """
    publisher.limits.update(workers)
    given = entries is not None
    names = own_tasks(publisher)
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
    if given:
        yield from (
            Finding("error", "tasks", said) for said in task_refusals(demand.tasks, allowed)
        )
    yield from _tasks(demand, workers, given=given)
    yield from _queues(publisher, tasks_by_queue(queues), workers)
    yield from holding_findings(publisher, demand, workers, queues, given=given, accepted=accepted)
    yield from _acknowledgement(publisher, demand, workers, given=given)
    yield from ends(publisher.tasks, demand, given=given)
    yield from _stores(publisher, demand, workers)
    yield from forking(publisher.address.broker_url, publisher.app.conf.broker_transport_options)
    yield from (Finding("warning", "pools", said) for said in pool_warnings(workers))
    if not publisher.calls_own_senders:
        senders = sending_notice(publisher.own_senders, demand.tasks, called=False)
        yield from (Finding("warning", "apply_async", said) for said in senders)
    unsaid = unsaid_warnings(workers, publisher.app.conf.task_serializer)
    yield from (Finding("unchecked", "workers", said) for said in unsaid)
    stock = [one.name for one in workers if one.is_stock]
    unmeasured = checks.unmeasured_times(demand, stock) if given else []
    yield from (Finding("warning", "receipts", said) for said in unmeasured)
    yield from _receipts(stock)


def own_tasks(publisher: Publisher) -> list[str]:
    """List the app's tasks that are neither Celery's nor ours."""
    return sorted(filter(is_of_project, publisher.tasks))


def is_of_project(task: str) -> bool:
    """Tell whether a task is neither Celery's nor ours, by its name."""
    return not task.startswith(("celery.", WORKER_MARK))


def eager(always: object, *, ours: bool) -> Iterator[Finding]:
    """Refuse an app whose tasks never reach a worker, but on a stack of ours: that is switched off
    there."""
    if always:
        yield (
            Finding("ok", "app", checks.EAGER_HERE)
            if ours
            else Finding("error", "app", checks.EAGER)
        )


def _tasks(demand: Demand, workers: Sequence[Worker], *, given: bool) -> Iterator[Finding]:
    if not demand.tasks:
        yield Finding(
            "warning", "tasks", "the app has no tasks; see what its imports and include name"
        )
        return
    if not workers:
        return
    unknown = checks.unknown_tasks(demand.tasks, workers)
    for task, near in unknown.items():
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        yield Finding(
            "error",
            "tasks",
            f"no worker that answered has the task {task}, so its jobs would not be run{hint}; "
            "start or deploy a worker whose app has it, or correct the name",
        )
    if not unknown and all(one.tasks for one in workers):
        whose = "the manifest" if given else "the app"
        known = f"{plural(len(demand.tasks), 'task')} of {whose}, each known to a worker"
        yield Finding("ok", "tasks", known)


def _queues(
    publisher: Publisher, needed: Mapping[str, set[str]], workers: Sequence[Worker]
) -> Iterator[Finding]:
    for queue in sorted(needed):
        phrase = reserved(queue, publisher.app, publisher.address.broker_url)
        if phrase is not None:
            yield Finding("error", "queues", f"no job may go to queue {queue!r}: {phrase}")
    if not workers:
        return
    idle = checks.idle_queues(needed, workers)
    for queue in idle:
        yield Finding(
            "error",
            "queues",
            f"no worker that answered consumes queue {queue!r}, where jobs of "
            f"{some_of(sorted(needed[queue]))} go; start a worker with -Q {queue}, or correct the "
            "route",
        )
    for sentence in checks.misrouted(needed, workers):
        yield Finding("warning", "queues", sentence)
    if not idle and not any(one.queues is None for one in workers):
        yield Finding("ok", "queues", f"{some_of(sorted(needed))}: consumed")


def _acknowledgement(
    publisher: Publisher, demand: Demand, workers: Sequence[Worker], *, given: bool
) -> Iterator[Finding]:
    if given:
        for sentence in checks.acknowledgement_notices(demand, acks_late(workers)):
            yield Finding("warning", "acks_late", sentence)
    elif named := sorted(late_tasks(publisher, demand, workers)):
        yield Finding(
            "unchecked",
            "acks_late",
            f"{some_of(named)}: acknowledged late, so a job runs again where its worker dies; "
            'whether that does harm only a manifest says ("idempotent"): add --manifest=FILE',
        )


def ends(tasks: Mapping[str, Task], demand: Demand, *, given: bool) -> Iterator[Finding]:
    """Say which tasks Celery 5.7 sends or has delivered again after an end, or drops."""
    known = {name: tasks[name] for name in demand.tasks if name in tasks}
    needs = {name: one for name, one in demand.tasks.items() if one.idempotent < one.count}
    retried = [name for name, task in known.items() if getattr(task, RETRIED, None)]
    if given:
        retried = [name for name in retried if name in needs]
    if retried:
        said = "are" if given else "may be"
        yield Finding(
            "warning" if given else "unchecked",
            "acks_late",
            f"{some_of(sorted(retried))}: a job whose process dies is sent again by its worker "
            f"({RETRIED}), and entries of it {said} not declared idempotent; declare them "
            '("idempotent": true), or leave the option out',
        )
    late = [(name, task) for name, task in known.items() if task.acks_late]
    if named := sorted(name for name, task in late if getattr(task, ON_TIMEOUT, True) is False):
        yield Finding(
            "warning",
            "acks_late",
            f"{some_of(named)}: a job is delivered again after each time limit ({ON_TIMEOUT}="
            "False), without end; a run revokes it once it has done so --manifest-kills times",
        )
    if named := sorted(name for name, task in late if getattr(task, ON_FAILURE, True) is False):
        yield Finding(
            "ok",
            "acks_late",
            f"{some_of(named)}: the message of a job that fails is rejected ({ON_FAILURE}=False), "
            "so a broker may keep it as a dead letter; its verdict is the same",
        )


def _stores(publisher: Publisher, demand: Demand, workers: Sequence[Worker]) -> Iterator[Finding]:
    known = [publisher.tasks[name] for name in demand.tasks if name in publisher.tasks]
    refused, perhaps = stores.refusals(publisher.app, publisher.address, known, workers)
    yield from (Finding("error", "store", sentence) for sentence in refused)
    yield from (Finding("warning", "store", sentence) for sentence in perhaps)
    if scheme_of(publisher.address.backend_url) == "rpc":
        yield Finding(
            "warning",
            "store",
            "results of rpc:// come back only to the process that sent the job, so "
            "--manifest-dispatch-only, --manifest-audit and --manifest-resume cannot be used",
        )


def forking(broker: str, options: object) -> Iterator[Finding]:
    """Warn of a database as broker whose connections a pool's processes would share.

    kombu keeps them for the whole class of its channels, so who is forked after the worker has
    connected has its parent's. ``options``: the app's ``broker_transport_options``.
    """
    first, _, inner = scheme_of(broker).partition("+")
    if first not in SQL_TRANSPORTS or inner.partition("+")[0] == "sqlite":
        return
    pool = options.get("poolclass") if isinstance(options, Mapping) else None
    if getattr(pool, "__name__", "") != "NullPool":
        yield Finding(
            "warning",
            "broker",
            "kombu's SQLAlchemy transport shares a prefork worker's connections with each process "
            "that takes the place of another (after a crash, a time limit, "
            "--max-tasks-per-child); jobs that retry or send others fail there, and messages are "
            "lost; set broker_transport_options = {'poolclass': sqlalchemy.pool.NullPool}, or use "
            "a pool of threads",
        )


def _receipts(stock: Sequence[str]) -> Iterator[Finding]:
    if stock:
        yield Finding(
            "unchecked",
            "receipts",
            f"{some_of(stock)}: without our instrumentation, so when a job starts, its log and its "
            "evidence are not seen; start the worker with -I pytest_manifest.worker",
        )
