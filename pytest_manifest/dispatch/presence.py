"""Which workers a broker knows of, and whether those that say nothing can be told to be gone.

A worker whose only process runs a job answers nothing meanwhile, and one that has ended neither. A
Redis broker has the names of all that ever listened, and no more than a killed one does it forget
them; but it also knows who is connected. Other brokers give back at once what a dead worker had, so
there nobody has to know.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pytest_manifest.dispatch.client import is_redis
from pytest_manifest.dispatch.control import Answers
from pytest_manifest.dispatch.publisher import Publisher
from pytest_manifest.dispatch.workers import QUESTIONS, workers_of
from pytest_manifest.errors import StackError
from pytest_manifest.log import redact, redact_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

TIMEOUT: Final = 1.0  # s
SETTLED: Final = 0.1  # s
CONSUMES: Final = "brpop"
"""What a worker says to a Redis broker last, on the connection on which it is given messages: it
is kept for that alone, also while the worker is too busy to ask for more."""


@dataclass(frozen=True, slots=True)
class Present:
    """Node names: ``telling`` hand in receipts and say when they begin a job, ``plain`` do not, and
    ``unheard`` are known to the broker, alive or dead, and did not answer."""

    telling: frozenset[str]
    plain: frozenset[str]
    unheard: frozenset[str]


def present(publisher: Publisher, timeout: float = TIMEOUT) -> Present:
    """Ask who is there now.

    Raises:
        StackError: the broker cannot be reached.
    """
    try:
        return publisher.call(lambda: _present(publisher, timeout))
    except Exception as error:
        raise StackError(
            f"the workers at {redact_url(publisher.address.broker_url)} cannot be asked "
            f"({type(error).__name__}: {redact(str(error))}); check that the broker is up"
        ) from error


def _present(publisher: Publisher, timeout: float) -> Present:
    lists = is_redis(publisher.address.broker_url)
    answers = publisher.control.ask(
        {"registered": QUESTIONS["registered"]},
        timeout=timeout,
        # Of those whose names are known, each is waited for.
        enough=lambda found, quiet: (
            any(found.values()) and (math.isinf(quiet) or (quiet >= SETTLED and not lists))
        ),
    )
    blank: Answers = {method: {} for method in QUESTIONS}
    workers = workers_of(blank | answers).values()
    names = frozenset(worker.name for worker in workers)
    plain = frozenset(worker.name for worker in workers if worker.is_plain)
    return Present(names - plain, plain, unheard_of(publisher, names))


def unheard_of(publisher: Publisher, answered: Collection[str]) -> frozenset[str]:
    """The nodes that a Redis broker lists, alive or dead, beyond those that ``answered``."""
    if not is_redis(publisher.address.broker_url):
        return frozenset()
    return frozenset(publisher.control.listeners()) - frozenset(answered)


def may_be_alive(
    publisher: Publisher,
    silent: Collection[str],
    answered: Collection[str],
    since: float = 0.0,
) -> bool:
    """Whether one of the ``silent`` nodes may be: more are connected to be given messages than
    have ``answered``, or nobody can tell, as the broker is up for less than ``since`` (s)."""
    if not silent:
        return False
    with _client(publisher) as client:
        connected = _consumers(client, since)
    return connected is None or connected > len(answered)


def _consumers(client: Redis, since: float) -> int | None:
    """How many consumers are connected; None where that says nothing of who is alive."""
    from redis import ResponseError

    database = str(client.connection_pool.connection_kwargs.get("db") or 0)
    try:
        clients = client.client_list()
        uptime = float(client.info("server").get("uptime_in_seconds", 0))
    except ResponseError:  # not for this user
        return None
    # A restart cuts all connections, also of who is too busy to notice it.
    if uptime < since or _cuts_idle_ones(client):
        return None
    ours = [one for one in clients if one.get("db") == database]
    consume = sum(one.get("cmd") == CONSUMES for one in ours)
    # A connection on which a worker once awaited answers looks like that, too; and it listens for
    # questions on one of its own.
    listen = sum(one.get("psub", "0") != "0" or one.get("sub", "0") != "0" for one in ours)
    return min(consume, listen)


def _cuts_idle_ones(client: Redis) -> bool:
    """Whether the server hangs up on who has been busy for long; mostly that is not so."""
    from redis import ResponseError

    try:
        return client.config_get("timeout").get("timeout", "0") != "0"
    except ResponseError:  # hosted ones do not tell, and do not do it unless told to
        return False


@contextmanager
def _client(publisher: Publisher) -> Iterator[Redis]:
    from redis import Redis

    with (
        publisher.control.channel() as channel,
        channel.conn_or_acquire() as client,
        # kombu's own puts the app's key prefix before some commands.
        Redis(connection_pool=client.connection_pool) as plain,
    ):
        yield plain
