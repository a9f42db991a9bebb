"""Find out whether anybody is there: workers that answer, and those that are only connected.

A worker whose only process runs a job answers nothing, and neither does one that cannot decode what
it is asked; but its broker knows that it is there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pytest_manifest.broker.client import AMQP_SCHEMES
from pytest_manifest.broker.control import NOT_FOUND
from pytest_manifest.broker.locating.worker_replies import QUIET_TIME, TIMEOUT, stack_errors
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import QUESTIONS, workers_of
from pytest_manifest.urls import is_redis, scheme_of

ASKED = "active_queues"


@dataclass(frozen=True, slots=True)
class Presence:
    """Hold who is there: node names.

    ``serving``: answered, and consume a queue of the run, or have not said which; ``others``:
    answered, and consume none of them. ``silent``: how many are connected to the broker and did not
    answer; None: it is not known whether there are any.
    """

    serving: frozenset[str]
    others: frozenset[str]
    silent: int | None


def look_for_workers(publisher: Publisher, queues: Collection[str]) -> Presence:
    """Ask for a second who consumes these queues; without any, every worker counts.

    Raises:
        StackError: the broker cannot be reached.
    """
    with stack_errors(publisher):
        return publisher.call(lambda: _look(publisher, frozenset(queues)))


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


def _look(publisher: Publisher, queues: frozenset[str]) -> Presence:
    answers = publisher.control.call(
        {ASKED: QUESTIONS[ASKED]},
        timeout=TIMEOUT,
        enough=lambda found, quiet: bool(found[ASKED]) and quiet > QUIET_TIME,
    )
    found = workers_of({question: {} for question in QUESTIONS} | answers).values()
    serving = frozenset(
        one.name for one in found if not queues or one.queues is None or one.queues & queues
    )
    others = frozenset(one.name for one in found) - serving
    return Presence(serving, others, _silent(publisher, queues, len(found), len(serving)))


def _silent(
    publisher: Publisher, queues: Collection[str], answered: int, serving: int
) -> int | None:
    url = publisher.address.broker_url
    if is_redis(url):
        return max(0, publisher.control.count_connected() - answered)
    if scheme_of(url) in AMQP_SCHEMES and queues:
        return max(0, max(_consumers(publisher, name) for name in queues) - serving)
    return None


def _consumers(publisher: Publisher, queue: str) -> int:
    with publisher.control.channel() as channel:
        try:
            return int(channel.queue_declare(queue=queue, passive=True).consumer_count)
        except Exception as error:
            if str(getattr(error, "reply_code", "")) == NOT_FOUND:
                return 0
            raise
