"""Locate jobs without a receipt: queued, unacknowledged by dead workers, or with a worker."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from kombu.utils.imports import symbol_by_name

from pytest_manifest.broker.locating.worker_replies import WorkerLocator as Locator
from pytest_manifest.broker.publisher import Publisher
from pytest_manifest.broker.routing import queue_name
from pytest_manifest.schema.models import Entry

__all__ = ["Locator", "open_locator", "queues_of"]


def open_locator(publisher: Publisher, queues: Sequence[str], nodes: Collection[str]) -> Locator:
    """Give the locator for the publisher's broker; it uses the publisher's control connection.

    ``queues``: names of all queues that the jobs go to. ``nodes``: names of the worker nodes known
    to exist; those that answer later are added.
    """
    kind: Callable[..., Locator] = symbol_by_name(publisher.transport.locator)
    return kind(publisher, queues, nodes)


def queues_of(publisher: Publisher, entries: Iterable[Entry]) -> list[str]:
    """Name the queues that these entries go to, as far as routes name one; sorted.

    Raises:
        DispatchError: an entry names a queue that the app does not have.
    """
    names = {queue_name(publisher.routing(entry)) for entry in entries}
    return sorted(name for name in names if name is not None)
