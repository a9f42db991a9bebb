"""Find the workers that answer and the jobs that each has; one that is silent may have any.

A worker whose only process runs a job answers nothing meanwhile, and one that has ended neither. A
Redis broker has the names of all that ever listened, and no more than a killed one does it forget
them; but it also knows who is connected. Other brokers give back at once what a dead worker had, so
this is not needed there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import wraps
from typing import Concatenate, Final, ParamSpec, TypeVar

from pytest_manifest.broker.control import Answers, Arguments, by_node
from pytest_manifest.broker.locating.base import BrokerSnapshot, DeliveryTags
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import QUESTIONS, Worker, workers_of
from pytest_manifest.errors import StackError
from pytest_manifest.redaction.texts import redact_error, redact_url
from pytest_manifest.urls import scheme_of

RUNNING: Final = "active"
# In the order in which a job passes through them: asked the other way round, one that moves on
# between two questions would be in neither answer.
JOB_QUESTIONS: Final[Mapping[str, Arguments]] = {"scheduled": {}, "reserved": {}, RUNNING: {}}
TIMEOUT: Final = 1.0  # s
QUIET_TIME: Final = 0.1  # s
"""All have answered, also unknown nodes, when no answer has come for so long."""


class WorkerPoller:
    """Ask the nodes that are known, and remember those that answer besides."""

    def __init__(self, publisher: Publisher, nodes: Collection[str]) -> None:
        self._publisher = publisher
        self._known = set(nodes)
        self.busy: frozenset[str] = frozenset()
        """Of the last poll: nodes that run a job, of the run or not, or hold one to run it now."""

    def poll(self, task_ids: Container[str]) -> BrokerSnapshot:
        """Ask all nodes what they have, for a second at most; raises what the transport raises."""
        answers = self._publisher.control.call(
            JOB_QUESTIONS,
            timeout=TIMEOUT,
            enough=lambda answers, quiet: quiet >= QUIET_TIME and self._all_answered(answers),
        )
        said = by_node(answers, list)  # an error is no answer
        answered = frozenset(node for node, questions in said.items() if _is_complete(questions))
        self._known |= said.keys()
        running = dict(_rows(answers, (RUNNING,), task_ids))
        waits = [question for question in JOB_QUESTIONS if question != RUNNING]
        held = {i: node for i, node in _rows(answers, waits, task_ids) if i not in running}
        self.busy = frozenset(
            node
            for question in (RUNNING, "reserved")
            for node, reply in answers.get(question, {}).items()
            if reply
        )
        silent = frozenset(self._known - answered)
        return BrokerSnapshot(
            reserved=held, running=running, unresponsive=silent, answered=answered
        )

    def _all_answered(self, answers: Answers) -> bool:
        said = by_node(answers, list)
        return bool(said) and all(
            _is_complete(said.get(one, ())) for one in self._known | said.keys()
        )


NONE_BEGUN: Final[Mapping[str, int]] = {}
ASKING: Final = "the workers at {} cannot be asked"


@contextmanager
def stack_errors(publisher: Publisher, what: str = "cannot look for jobs at {}") -> Iterator[None]:
    """Turn what a transport raises into a sentence.

    Raises:
        StackError: anything was raised within.
    """
    try:
        yield
    except Exception as error:
        # kombu wraps the transport's own error, which is the one that says what happened.
        cause, url = error.__cause__ or error, publisher.address.broker_url
        raise StackError(
            f"{what.format(redact_url(url))} ({redact_error(cause, url)}); check that the "
            "broker is up"
        ) from error


def unknown_queues(queues: Collection[str]) -> str:
    """Say where it is not known which queues the jobs went to."""
    return "" if queues else "it is not known to which queues the jobs went"


def _is_complete(said: Collection[str]) -> bool:
    return len(said) == len(JOB_QUESTIONS)


def _rows(
    answers: Answers, questions: Collection[str], task_ids: Container[str]
) -> Iterator[tuple[str, str]]:
    """Give task id and node of every row about one of ``task_ids``."""
    for question in questions:
        for node, reply in answers.get(question, {}).items():
            for row in reply if isinstance(reply, list) else ():
                task_id = _task_id(row)
                if task_id is not None and task_id in task_ids:
                    yield task_id, node


def _task_id(row: object) -> str | None:
    # What waits for its time is one level deeper than what a worker runs or holds.
    request = row.get("request", row) if isinstance(row, dict) else None
    task_id = request.get("id") if isinstance(request, dict) else None
    return task_id if isinstance(task_id, str) else None


P = ParamSpec("P")
T = TypeVar("T")
L = TypeVar("L", bound="WorkerLocator")


def bounded(method: Callable[Concatenate[L, P], T]) -> Callable[Concatenate[L, P], T]:
    """Have a locator's method wait only as long as its publisher's calls do; raises StackError."""

    @wraps(method)
    def call(locator: L, /, *args: P.args, **kwargs: P.kwargs) -> T:
        asked = stack_errors(locator.publisher)(method)
        return locator.publisher.call(lambda: asked(locator, *args, **kwargs))

    return call


class WorkerLocator:
    """Look for jobs on any broker, by asking the workers. For the publisher's thread alone.

    Nothing is put back or removed here: such a broker shows no messages. What talks to the broker
    raises StackError where that cannot be reached.
    """

    def __init__(self, publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> None:
        self.publisher = publisher
        self.queues = list(queues)
        self._workers = WorkerPoller(publisher, nodes)

    def add_queues(self, names: Iterable[str]) -> None:
        """Look into these queues, too, from now on."""
        self.queues += [name for name in names if name not in self.queues]

    @bounded
    def snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        """Take a snapshot of these task ids: queues, unacknowledged messages, workers.

        The queues are read, as far as they can be seen, before and after the workers.
        """
        wanted = frozenset(task_ids)
        queued, unseen = self.snapshot_queues(wanted)
        said = self._workers.poll(wanted)
        # And again, for one that went back meanwhile: a retry.
        after, still_unseen = self.snapshot_queues(wanted)
        return replace(
            said,
            queued={**queued, **after},
            blind_spot=still_unseen
            or unseen
            or self.missing_consumers(said.answered)
            or self.unread_messages(said.answered),
        )

    def kept(self) -> Mapping[str, DeliveryTags]:
        """Return all that workers took and have not acknowledged, by task id; no worker is asked.

        Nothing where the broker does not show that.
        """
        return {}

    def restore(
        self,
        orphans: Mapping[str, DeliveryTags],  # noqa: ARG002
        begun: Mapping[str, int] = NONE_BEGUN,  # noqa: ARG002
    ) -> list[str]:
        """Put orphans (task id -> tags) back into their queue; returns the task ids that are.

        What has gone meanwhile is left alone, so to do it twice, or in two processes, is safe.
        ``begun``: up to which retry a job has begun, and was handed on: a message of that, which
        its worker had not acknowledged, is removed.
        """
        return []

    def discard(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:  # noqa: ARG002
        """Remove orphans for good, so that no worker runs them; returns the task ids that were
        there."""
        return []

    def withdraw(self, task_ids: Collection[str]) -> list[str]:  # noqa: ARG002
        """Remove what waits in a queue, so that no worker gets it; returns the task ids removed.

        What a worker has taken is not touched. Nothing is removed where no message can be seen.
        """
        return []

    @bounded
    def listeners(self) -> int | None:
        """Count the connections of workers to the broker, None where it does not tell."""
        return self.publisher.control.count_connected()

    def snapshot_queues(self, wanted: frozenset[str]) -> tuple[dict[str, str], str]:  # noqa: ARG002
        """Map task id -> queue for what can be seen; add a phrase for what cannot."""
        scheme = scheme_of(self.publisher.address.broker_url)
        return {}, f"a broker reached by {scheme}:// does not show which messages wait in a queue"

    def missing_consumers(self, answered: frozenset[str]) -> str:  # noqa: ARG002
        """Say which consumers the broker knows of that have not answered."""
        return ""

    def unread_messages(self, answered: frozenset[str]) -> str:  # noqa: ARG002
        """Say which workers may have been given messages that they have not read yet."""
        return ""


@dataclass(frozen=True, slots=True)
class WorkerPresence:
    """Node names: ``instrumented`` hand in receipts and report starts, ``stock`` do not, and
    ``unresponsive`` are known to the broker, alive or dead, and did not answer."""

    instrumented: frozenset[str]
    stock: frozenset[str]
    unresponsive: frozenset[str]


def ask_workers(
    publisher: Publisher,
    questions: Mapping[str, Arguments] = QUESTIONS,
    *,
    timeout: float = TIMEOUT,
    enough: Callable[[Answers, float], bool] = lambda found, quiet: (
        any(found.values()) and quiet >= QUIET_TIME
    ),
) -> list[Worker]:
    """Ask the workers that are there what they are; raises what the transport raises."""
    answers = publisher.call(
        lambda: publisher.control.call(questions, timeout=timeout, enough=enough)
    )
    return list(workers_of({one: {} for one in QUESTIONS} | answers).values())


def find_workers(publisher: Publisher, timeout: float = TIMEOUT) -> WorkerPresence:
    """Ask who is there now.

    Raises:
        StackError: the broker cannot be reached.
    """
    # Of those whose names are known, each is waited for.
    lists = publisher.transport.knows_listeners
    with stack_errors(publisher, ASKING):
        workers = ask_workers(
            publisher,
            {"registered": QUESTIONS["registered"]},
            timeout=timeout,
            enough=lambda found, quiet: (
                any(found.values()) and (math.isinf(quiet) or (quiet >= QUIET_TIME and not lists))
            ),
        )
        names = frozenset(worker.name for worker in workers)
        plain = frozenset(worker.name for worker in workers if worker.is_stock)
        silent = publisher.call(lambda: unresponsive_nodes(publisher, names))
    return WorkerPresence(names - plain, plain, silent)


def describe_workers(publisher: Publisher) -> list[Worker]:
    """Ask the workers that are there for their tasks and pools.

    Raises:
        StackError: the broker cannot be reached.
    """
    with stack_errors(publisher):
        return ask_workers(publisher, {one: QUESTIONS[one] for one in ("registered", "stats")})


def unresponsive_nodes(publisher: Publisher, answered: Collection[str]) -> frozenset[str]:
    """List the nodes that the broker knows, alive or dead, beyond those that ``answered``."""
    if not publisher.transport.knows_listeners:
        return frozenset()
    return frozenset(publisher.control.listeners()) - frozenset(answered)


def may_be_alive(
    publisher: Publisher,
    silent: Collection[str],
    answered: Collection[str],
    since: float = 0.0,
) -> bool:
    """Tell whether a ``silent`` node may be alive: more nodes listen than have ``answered``,
    or that is unknown, as the broker is up for less than ``since`` (s)."""
    if not silent:
        return False
    # A restart cuts all connections, also of who is too busy to notice it.
    connected = publisher.control.count_connected() or 0
    with publisher.control.channel() as channel:
        is_new = publisher.transport.uptime(channel) < since
    return is_new or connected > len(answered)
