"""The publisher: attempts go out in batches, and every one ends as sent, uncertain or unsent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from celery import Celery, Task
from loguru import logger

from pytest_manifest.dispatch.attempt import Attempt, run8
from pytest_manifest.dispatch.client import load_app, scheme_of
from pytest_manifest.dispatch.control import Control
from pytest_manifest.dispatch.limits import OwnLimits
from pytest_manifest.dispatch.link import Link
from pytest_manifest.dispatch.messages import MessageBuilder, Outgoing
from pytest_manifest.dispatch.routing import AppRouting, queue_name
from pytest_manifest.errors import StackError
from pytest_manifest.log import redact, redact_url
from pytest_manifest.schema import Entry
from pytest_manifest.stack.address import StackAddress

# One chunk is one round trip and one unit of doubt, whose entries are located after a failure;
# more at once are no faster by much, and large arguments are in memory together.
CHUNK: Final = 250


@dataclass(frozen=True, slots=True)
class PublishResult:
    """What became of each task id of one call; the three lists together are all of them.

    ``certain``: the broker has the message. ``uncertain``: it may have it; locate these before
    sending them again. ``unsent``: it certainly does not have it. ``error``: one sentence, or
    None when every attempt is certain.
    """

    certain: list[str] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    error: str | None = None
    unsent: list[str] = field(default_factory=list)


class Publisher:
    """Sends attempts to the broker of ``address``, by task name.

    ``stream`` is the key of the run's receipts stream ("" where there is none), ``ttl`` the
    seconds it lives. Connects at the first :meth:`publish`, and again after a failure. For one
    thread at a time.
    """

    def __init__(self, address: StackAddress, *, stream: str, ttl: int) -> None:
        self.address = address
        self.app: Celery = load_app(address)
        # Finalising a plain app would give it the tasks of every other app in this process.
        self.tasks: Mapping[str, Task] = self.app.tasks if address.app else {}
        self.routing = AppRouting(self.app, self.tasks)
        self.limits = OwnLimits(self.app)
        self._rpc = scheme_of(address.backend_url) == "rpc"
        self._builder = MessageBuilder(
            self.app, self.routing, stream=stream, ttl=ttl, rpc=self._rpc, limits=self.limits
        )
        self.control = Control(self.app, address)
        self._link: Link | None = None

    def own_limit(self, entry: Entry) -> float | None:
        """Seconds that the entry's task, or its workers, let it run; None for no limit known."""
        return self.limits.of(entry.task, self.routing(entry)).hard

    @property
    def result_expires(self) -> float | None:
        """Seconds for which the app's result store keeps results; None for ever."""
        value = self.app.conf.result_expires
        if isinstance(value, timedelta):
            return value.total_seconds()
        return float(value) if value else None

    def publish(self, attempts: Sequence[Attempt], sent_at: datetime) -> PublishResult:
        """Send all attempts, or as many as the broker takes; ``sent_at`` goes into each message.

        Raises:
            DispatchError: an entry cannot be made into a message; nothing was sent then.
        """
        outgoing = self._builder.build(attempts, sent_at)
        result = PublishResult()
        if not outgoing:
            return result
        try:
            link = self._ready_link(outgoing)
        except Exception as error:
            # Nothing has left yet, whatever went wrong.
            return PublishResult(
                unsent=[attempt.task_id for attempt in attempts], error=self._sentence(error)
            )
        return self._send_all(link, outgoing)

    def revoke(self, task_ids: Sequence[str], terminate: bool = False) -> None:
        """Tell all workers not to run these tasks; ``terminate`` also ends those that run.

        Raises:
            StackError: the broker cannot be reached.
        """
        with self._asking("revoke jobs"):
            self.control.revoke(task_ids, terminate=terminate)

    def queue_lengths(self, names: Sequence[str]) -> dict[str, int]:
        """Count the messages that wait in each queue, 0 where there is no such queue.

        Raises:
            StackError: the broker cannot be reached.
        """
        with self._asking("count waiting jobs"):
            return self.control.queue_lengths(names)

    def close(self) -> None:
        """End the connections; the next call of any method would open others."""
        self.control.close()
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):  # A connection that is gone already is as closed.
                link.close()

    def _send_all(self, link: Link, outgoing: Sequence[Outgoing]) -> PublishResult:
        result = PublishResult()
        for start in range(0, len(outgoing), CHUNK):
            chunk = outgoing[start : start + CHUNK]
            try:
                returned = set(link.send(chunk))
            except Exception as error:
                # The ledger must learn what is certain, so this never leaves as an exception.
                self._drop()
                result.uncertain.extend(_ids(chunk))
                result.unsent.extend(_ids(outgoing[start + CHUNK :]))
                return _with_error(result, self._sentence(error))
            except BaseException:
                # Interrupted between question and answer: the connection is of no use any more.
                self._drop()
                raise
            _log_sent(one for one in chunk if one.attempt.task_id not in returned)
            result.certain.extend(one for one in _ids(chunk) if one not in returned)
            result.unsent.extend(one for one in _ids(chunk) if one in returned)
        if result.unsent:
            return _with_error(result, _unroutable(result.unsent, outgoing))
        return result

    def _ready_link(self, outgoing: Sequence[Outgoing]) -> Link:
        """Give a link that has just answered, with every queue of the batch declared."""
        if self._link is not None:
            try:
                self._prepare(self._link, outgoing)
            except Exception:
                # It was idle, and the broker or something between has closed it since.
                self._drop()
            else:
                return self._link
        self._link = Link(self.app, self.address)
        try:
            self._prepare(self._link, outgoing)
        except BaseException:
            self._drop()
            raise
        return self._link

    def _prepare(self, link: Link, outgoing: Sequence[Outgoing]) -> None:
        prefixes = {run8(one.attempt.run) for one in outgoing} if self._rpc else set()
        link.prepare(outgoing, prefixes)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            with suppress(Exception):
                link.drop()

    @contextmanager
    def _asking(self, purpose: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise StackError(f"cannot {purpose}: {self._reason(error)}") from error

    def _sentence(self, error: Exception) -> str:
        return f"publishing failed: {self._reason(error)}"

    def _reason(self, error: Exception) -> str:
        # kombu wraps the transport's own error, which is the one that says what happened.
        cause = error.__cause__ or error
        return (
            f"{type(cause).__name__} at {redact_url(self.address.broker_url)} "
            f"({redact(str(cause))})"
        )


def _ids(outgoing: Sequence[Outgoing]) -> list[str]:
    return [one.attempt.task_id for one in outgoing]


def _with_error(result: PublishResult, error: str) -> PublishResult:
    return PublishResult(result.certain, result.uncertain, error, result.unsent)


def _unroutable(unsent: Sequence[str], outgoing: Sequence[Outgoing]) -> str:
    lost = set(unsent)
    first = next(one.attempt.entry for one in outgoing if one.attempt.task_id in lost)
    return (
        f"{len(unsent)} messages were not sent because no queue is bound to where they go, the "
        f"first one of entry {first.id!r} ({first.task}); check the task's route"
    )


def _log_sent(outgoing: Iterable[Outgoing]) -> None:
    """A line of the log for each; all in one record, which costs as much as what it tells of."""
    lines = [
        f"Job Sent: {one.attempt.entry.id} -> {one.attempt.entry.task} "
        f"({one.attempt.task_id}, queue {queue_name(one.options)})"
        for one in outgoing
    ]
    if lines:
        logger.debug("{}", "\n".join(lines))
