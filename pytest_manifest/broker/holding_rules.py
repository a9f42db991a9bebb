"""Check for how long the broker lets a worker hold a message before it hands it out again."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from pytest_manifest.broker.checks import Demand, TaskAndQueue, tasks_by_queue
from pytest_manifest.broker.client import AMQP_SCHEMES
from pytest_manifest.broker.findings import Finding, some_of
from pytest_manifest.broker.redelivery import redelivery_findings
from pytest_manifest.broker.visibility import hands_out_again, visibility_of
from pytest_manifest.broker.workers import Worker, acks_late
from pytest_manifest.urls import scheme_of

if TYPE_CHECKING:
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
