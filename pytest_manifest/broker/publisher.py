"""Publish attempts in batches; each ends as certain, uncertain, unsent or refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from celery import Celery, Task
from kombu import Queue
from loguru import logger

from pytest_manifest.broker import bounded
from pytest_manifest.broker.attempt import Attempt, run8
from pytest_manifest.broker.client import load_app
from pytest_manifest.broker.connection import PublishConnection
from pytest_manifest.broker.control import Control
from pytest_manifest.broker.messages import MessageBuilder, Outgoing, own_senders
from pytest_manifest.broker.routing import AppRouting, destination_of, queue_name, reserved
from pytest_manifest.broker.transports import transport_of
from pytest_manifest.broker.workers import TaskLimits
from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact_about, redact_url
from pytest_manifest.schema import Entry
from pytest_manifest.schema.tracing import RunTrace
from pytest_manifest.urls import StackAddress, is_rpc
from pytest_manifest.verdict.problems import Refused
from pytest_manifest.verdict.reasons import Problem

# One chunk is one round trip and one unit of doubt, whose entries are located after a failure;
# more at once are no faster by much, and large arguments are in memory together.
CHUNK: Final = 250

T = TypeVar("T")


@dataclass(slots=True)
class PublishResult:
    """The end of each task id of one call; the lists and ``refused`` together are all of them.

    ``certain``: the broker has the message. ``uncertain``: it may have it; locate these before
    sending them again. ``unsent``: it certainly does not have it. ``refused``: nor has it these,
    and trying again is no use; with the reason. ``error``: one sentence, or None when
    every attempt is certain or refused.
    """

    certain: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    error: str | None = None
    unsent: list[str] = field(default_factory=list)
    refused: dict[str, Problem] = field(default_factory=dict)


class Publisher:
    """Send attempts to the broker of ``address``, by task name.

    ``stream`` is the key of the run's receipts stream ("" where there is none), ``ttl`` the
    seconds it lives. ``own_apply_async``: tasks with an ``apply_async`` of their own make their
    messages by it. ``trace``: of the run, whose spans its messages name; None: they name none.
    Connects at the first :meth:`publish`, and again after a failure. For one
    thread at a time.
    """

    def __init__(
        self,
        address: StackAddress,
        *,
        stream: str,
        ttl: int,
        budget: bounded.WaitBudget | None = None,
        own_apply_async: bool = False,
        trace: RunTrace | None = None,
    ) -> None:
        self.address = address
        self.transport = transport_of(address.broker_url)
        self.app: Celery = load_app(address)
        # Finalising a plain app would give it the tasks of every other app in this process.
        self.tasks: Mapping[str, Task] = self.app.tasks if address.app else {}
        self.own_senders = own_senders(self.app, self.tasks)
        """By task: what it sends by, where that is not Celery's own."""
        self.calls_own_senders = own_apply_async
        self.routing = AppRouting(self.app, self.tasks)
        self.limits = TaskLimits(self.app)
        self._rpc = is_rpc(address.backend_url)
        self._builder = MessageBuilder(
            self.app,
            self.routing,
            stream=stream,
            ttl=ttl,
            rpc=self._rpc,
            limits=self.limits,
            tasks=self.tasks,
            own=self.own_senders if own_apply_async else (),
            trace=trace,
        )
        self._control = Control(self.app, address)
        self._connection: PublishConnection | None = None
        self.refused: dict[str, str] = {}
        """Queues that were refused, so that nothing of ours is in them, and why."""
        self._caller = bounded.BoundedCaller(address.broker_url, budget, self._abandon_connections)

    @property
    def control(self) -> Control:
        """Give the remote control; an abandoned thread, which had the last one, is refused."""
        bounded.refuse_if_abandoned()
        return self._control

    def own_limit(self, entry: Entry) -> float | None:
        """Give the seconds that the entry's task or workers let it run; None: no limit known."""
        return self.limits.limit_for(entry.task, self.routing(entry)).hard

    @property
    def result_expires(self) -> float | None:
        """Give the seconds for which the app's result store keeps results; None: for ever."""
        value = self.app.conf.result_expires
        if isinstance(value, timedelta):
            return value.total_seconds()
        return float(value) if value else None

    def publish(self, attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        """Send all attempts, or as many as the broker takes; ``sent_at`` goes into each message."""
        built, unmade = self._builder.build(attempts, sent_at)
        # No call for an entry here: nearly always all go to one queue, and that is as good as any.
        queues = [one.options.get("queue") for one in built]
        closed = self._reserved({queue.name for queue in queues if isinstance(queue, Queue)})
        refused = unmade | _refused(built, closed)
        outgoing = _without(built, refused)
        if not outgoing:
            return PublishResult(refused=refused)
        try:
            link, closed = self._ready_connection(outgoing)
        except Exception as error:
            # Nothing has left yet, whatever went wrong.
            unsent = _ids(outgoing)
            return PublishResult(unsent=unsent, error=self._error_message(error), refused=refused)
        self.refused |= closed
        refused |= _refused(outgoing, closed)
        result = self._send_all(link, _without(outgoing, refused))
        result.refused.update(refused)
        self._builder.forget([*result.certain, *result.refused])
        return result

    def refusals(self, names: Iterable[str]) -> dict[str, str]:
        """Map each of these queues of the app that the broker refuses -> a phrase that says why.

        Raises:
            StackError: the broker cannot be reached.
        """
        wanted = list(names)
        closed = self._reserved(wanted)
        queues = [self.app.amqp.queues[name] for name in wanted if name not in closed]
        self.refused |= closed
        if not queues:
            return closed
        with self._stack_errors("declare queues"):
            link = self._connection or self._connect()
            self.refused |= self.call(lambda: link.declare(queues))
        return {name: phrase for name, phrase in self.refused.items() if name in wanted}

    def _reserved(self, names: Iterable[str]) -> dict[str, str]:
        found = ((name, reserved(name, self.app, self.transport)) for name in names)
        return {name: phrase for name, phrase in found if phrase is not None}

    def revoke(self, task_ids: Sequence[str], terminate: bool = False) -> None:
        """Tell all workers not to run these tasks; ``terminate`` also ends those that run.

        Raises:
            StackError: the broker cannot be reached.
        """
        with self._stack_errors("revoke jobs"):
            self.call(lambda: self.control.revoke(task_ids, terminate=terminate))

    def queue_lengths(self, names: Sequence[str]) -> dict[str, int]:
        """Count the messages that wait in each queue, 0 where there is no such queue.

        Raises:
            StackError: the broker cannot be reached.
        """
        with self._stack_errors("count waiting jobs"):
            counts = self.call(lambda: [self.control.count(name) for name in names])
        return {name: one[0] if one else 0 for name, one in zip(names, counts, strict=True)}

    def call(self, function: Callable[[], T]) -> T:
        """Run a function that uses these connections within bounded time; give its result.

        Raises:
            PeerTimeoutError: the broker does not answer.
        """
        return self._caller.call(function)

    def close(self) -> None:
        """End the connections; the next call of any method would open others."""
        self._caller.close(self._close)

    def _close(self) -> None:
        self.control.close()
        self._let_go(PublishConnection.close)

    def _send_all(self, link: PublishConnection, outgoing: Sequence[Outgoing]) -> PublishResult:
        result = PublishResult()
        for start in range(0, len(outgoing), CHUNK):
            chunk = outgoing[start : start + CHUNK]
            try:
                returned = set(self.call(partial(link.send, chunk)))
            except Exception as error:
                # The ledger must learn what is certain, so this never leaves as an exception.
                self._let_go()
                result.uncertain.extend(_ids(chunk))
                result.unsent.extend(_ids(outgoing[start + CHUNK :]))
                result.error = self._error_message(error)
                return result
            except BaseException:
                # Interrupted between question and answer: the connection is of no use any more.
                self._let_go()
                raise
            _log_sent(one for one in chunk if one.attempt.task_id not in returned)
            result.certain.extend(one for one in _ids(chunk) if one not in returned)
            result.refused.update(_unroutable(chunk, returned) if returned else {})
        return result

    def _ready_connection(
        self, outgoing: Sequence[Outgoing]
    ) -> tuple[PublishConnection, dict[str, str]]:
        """Give a link that has just answered, with every queue of the batch declared but those that
        are refused, and why they are."""
        link = self._connection
        if link is not None:
            try:
                return link, self._prepare(link, outgoing)
            except bounded.PeerTimeoutError:
                raise  # another connection would get no answer either
            except Exception:
                # It was idle, and the broker or something between has closed it since.
                self._let_go()
        link = self._connect()
        try:
            return link, self._prepare(link, outgoing)
        except BaseException:
            self._let_go()
            raise

    def _connect(self) -> PublishConnection:
        # Kept here, not in the thread that makes it: an abandoned one must keep nothing.
        self._connection = self.call(lambda: PublishConnection(self.app, self.address))
        return self._connection

    def _prepare(self, link: PublishConnection, outgoing: Sequence[Outgoing]) -> dict[str, str]:
        prefixes = {run8(one.attempt.run) for one in outgoing} if self._rpc else set()
        return self.call(lambda: link.prepare(outgoing, prefixes))

    def _let_go(self, end: Callable[[PublishConnection], None] = PublishConnection.drop) -> None:
        link, self._connection = self._connection, None
        if link is not None:
            with suppress(Exception):  # A connection that is gone already is as closed.
                end(link)

    def _abandon_connections(self) -> None:
        """Leave the connections to the thread that still waits on them; it stops waiting."""
        control, self._control = self._control, Control(self.app, self.address)
        control.sever()
        self._let_go(PublishConnection.sever)

    @contextmanager
    def _stack_errors(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise StackError(f"cannot {purpose}: {self._reason(error)}") from error

    def _error_message(self, error: Exception) -> str:
        return f"publishing failed: {self._reason(error)}"

    def _reason(self, error: Exception) -> str:
        # kombu wraps the transport's own error, which is the one that says what happened.
        cause = error.__cause__ or error
        return (
            f"{type(cause).__name__} at {redact_url(self.address.broker_url)} "
            f"({redact_about(str(cause), self.address.broker_url)})"
        )


def _ids(outgoing: Sequence[Outgoing]) -> list[str]:
    return [one.attempt.task_id for one in outgoing]


def _refused(outgoing: Iterable[Outgoing], closed: Mapping[str, str]) -> dict[str, Problem]:
    """Map task id -> why it is not sent, for messages to a refused queue."""
    return {
        one.attempt.task_id: Refused(error=f"it goes to queue {name!r}, and {closed[name]}")
        for one in (outgoing if closed else ())
        if (name := queue_name(one.options)) in closed and name is not None
    }


def _without(outgoing: Sequence[Outgoing], refused: Container[str]) -> Sequence[Outgoing]:
    if not refused:
        return outgoing
    return [one for one in outgoing if one.attempt.task_id not in refused]


def _unroutable(chunk: Iterable[Outgoing], returned: Collection[str]) -> dict[str, Problem]:
    """Map task id -> why it is not sent, for messages that no queue is bound for."""
    said = (
        "no queue of the broker is bound to where it goes: its route leads to exchange {!r} with "
        "routing key {!r}"
    )
    return {
        one.attempt.task_id: Refused(error=said.format(*destination_of(one.options)))
        for one in chunk
        if one.attempt.task_id in returned
    }


def _log_sent(outgoing: Iterable[Outgoing]) -> None:
    """Log a line for each message, all in one record: a record costs as much as a message."""
    lines = [
        f"Job Sent: {one.attempt.entry.id} -> {one.attempt.entry.task} "
        f"({one.attempt.task_id}, queue {queue_name(one.options)})"
        for one in outgoing
    ]
    if lines:
        logger.debug("{}", "\n".join(lines))
