"""Find the workers that a broker knows, and whether unresponsive ones may be alive.

A worker whose only process runs a job answers nothing meanwhile, and one that has ended neither. A
Redis broker has the names of all that ever listened, and no more than a killed one does it forget
them; but it also knows who is connected. Other brokers give back at once what a dead worker had, so
this is not needed there.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from pytest_manifest.broker.control import Answers
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.workers import QUESTIONS, workers_of
from pytest_manifest.errors import StackError
from pytest_manifest.log import redact, redact_url
from pytest_manifest.urls import is_redis

TIMEOUT: Final = 1.0  # s
QUIET_TIME: Final = 0.1  # s


@dataclass(frozen=True, slots=True)
class WorkerPresence:
    """Node names: ``instrumented`` hand in receipts and report starts, ``stock`` do not, and
    ``unresponsive`` are known to the broker, alive or dead, and did not answer."""

    instrumented: frozenset[str]
    stock: frozenset[str]
    unresponsive: frozenset[str]


def find_workers(publisher: Publisher, timeout: float = TIMEOUT) -> WorkerPresence:
    """Ask who is there now.

    Raises:
        StackError: the broker cannot be reached.
    """
    try:
        return publisher.call(lambda: _find_workers(publisher, timeout))
    except Exception as error:
        raise StackError(
            f"the workers at {redact_url(publisher.address.broker_url)} cannot be asked "
            f"({type(error).__name__}: {redact(str(error))}); check that the broker is up"
        ) from error


def _find_workers(publisher: Publisher, timeout: float) -> WorkerPresence:
    lists = is_redis(publisher.address.broker_url)
    answers = publisher.control.call(
        {"registered": QUESTIONS["registered"]},
        timeout=timeout,
        # Of those whose names are known, each is waited for.
        enough=lambda found, quiet: (
            any(found.values()) and (math.isinf(quiet) or (quiet >= QUIET_TIME and not lists))
        ),
    )
    blank: Answers = {method: {} for method in QUESTIONS}
    workers = workers_of(blank | answers).values()
    names = frozenset(worker.name for worker in workers)
    plain = frozenset(worker.name for worker in workers if worker.is_stock)
    return WorkerPresence(names - plain, plain, unresponsive_nodes(publisher, names))


def unresponsive_nodes(publisher: Publisher, answered: Collection[str]) -> frozenset[str]:
    """List the nodes that a Redis broker knows, alive or dead, beyond those that ``answered``."""
    if not is_redis(publisher.address.broker_url):
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
    return not _is_up_for(publisher, since) or publisher.control.count_connected() > len(answered)


def _is_up_for(publisher: Publisher, seconds: float) -> bool:
    """Tell whether the broker reports that uptime; one that reports none may have just started."""
    from redis import ResponseError

    with publisher.control.channel() as channel, channel.conn_or_acquire() as client:
        try:
            uptime = client.info("server").get("uptime_in_seconds", 0)
        except ResponseError:  # not for this user
            return False
    return float(uptime) >= seconds
