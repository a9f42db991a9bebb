"""Locate jobs without a receipt: queued, unacknowledged by dead workers, or with a worker."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from pytest_manifest.broker.client import AMQP_SCHEMES
from pytest_manifest.broker.locating.base import (
    BrokerSnapshot,
    DeliveryTags,
    JobLocations,
    Locator,
    StartedOn,
    compare,
)
from pytest_manifest.broker.locating.worker_replies import WorkerLocator
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.routing import queue_name
from pytest_manifest.schema.models import Entry
from pytest_manifest.urls import is_redis, scheme_of

__all__ = [
    "BrokerSnapshot",
    "JobLocations",
    "Locator",
    "StartedOn",
    "compare",
    "open_locator",
    "queues_of",
]

MEMORY_SCHEME: Final = "memory"


def open_locator(publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> Locator:
    """Give the locator for the publisher's broker; it uses the publisher's control connection.

    ``queues``: names of all queues that the jobs go to. ``nodes``: names of the worker nodes known
    to exist; those that answer later are added.
    """
    return BoundedLocator(publisher, _locator(publisher, queues, nodes))


def _locator(publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> Locator:
    url = publisher.address.broker_url
    # Imported where needed: each needs its transport's own library.
    if is_redis(url):
        from pytest_manifest.broker.locating.redis import RedisLocator

        return RedisLocator(publisher, queues, nodes)
    if scheme_of(url) in AMQP_SCHEMES:
        from pytest_manifest.broker.locating.amqp import AmqpLocator

        return AmqpLocator(publisher, queues, nodes)
    if scheme_of(url) == MEMORY_SCHEME:
        from pytest_manifest.broker.locating.redis import MemoryLocator

        return MemoryLocator(publisher, queues, nodes)
    return WorkerLocator(publisher, nodes)


def queues_of(publisher: Publisher, entries: Iterable[Entry]) -> list[str]:
    """Name the queues that these entries go to, as far as routes name one; sorted.

    Raises:
        DispatchError: an entry names a queue that the app does not have.
    """
    names = {queue_name(publisher.routing(entry)) for entry in entries}
    return sorted(name for name in names if name is not None)


class BoundedLocator:
    """Have another locator's calls wait only as long as the publisher's do."""

    def __init__(self, publisher: Publisher, inner: Locator) -> None:
        self._publisher = publisher
        self._inner = inner

    def add_queues(self, names: Iterable[str]) -> None:
        """Look into these queues, too; see :class:`Locator`."""
        self._inner.add_queues(names)

    def snapshot(self, task_ids: Collection[str]) -> BrokerSnapshot:
        """Take a snapshot within bounded time; see :class:`Locator`."""
        wanted = frozenset(task_ids)
        return self._publisher.call(lambda: self._inner.snapshot(wanted))

    def kept(self) -> Mapping[str, DeliveryTags]:
        return self._publisher.call(self._inner.kept)

    def restore(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:
        return self._publisher.call(lambda: self._inner.restore(orphans))

    def discard(self, orphans: Mapping[str, DeliveryTags]) -> list[str]:
        return self._publisher.call(lambda: self._inner.discard(orphans))

    def withdraw(self, task_ids: Collection[str]) -> list[str]:
        wanted = frozenset(task_ids)
        return self._publisher.call(lambda: self._inner.withdraw(wanted))

    def listeners(self) -> int | None:
        return self._publisher.call(self._inner.listeners)

    def close(self) -> None:
        self._inner.close()
